// Package registry knows the devices: where each is reached, whose it is, and which of them an audience means.
//
// The two types to know are [Registry], the devices as Redis holds them, and [Applier], which keeps them as the topic
// belfry.devices says. Kafka is the truth and Redis a view of it: [Rebuild] makes the view anew. [Filter] is an
// audience's expression, compiled (docs/audience.md).
package registry
