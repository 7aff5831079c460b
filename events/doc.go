// Package events is the contract of belfry.events, which backends may produce to directly: one product event, as JSON
// or as protobuf (docs/kafka.md).
//
// The two to know are [Event], the JSON form, and [Parse], which reads either form of a record's value.
package events
