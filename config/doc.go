// Package config is the one configuration of every process: read from a YAML file and BELFRY_ variables, checked as a
// whole, and turned into what the packages need.
//
// The two types to know are [Config], which [Load] reads, and [Finding], one line of what [Check] says of the credentials,
// Kafka, Redis and the providers behind it. docs/configuration.md is written from the tags of Config's fields.
package config
