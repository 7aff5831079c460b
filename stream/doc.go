// Package stream is the one primitive that every role of Belfry is made of: consume a record, do something with it that
// takes a while, out of order and concurrently, then finish it once, with its outputs, exactly once inside Kafka.
//
// The two types to know are [Consumer], which owns a group's clients, windows and commits, and [Task], one record that
// ends with [Task.Done]. [View] follows a compacted topic for those who only read it, [Kafka] makes every client, and
// [Embedded] is a broker in the same process.
package stream
