// Package senders is the lane: deliveries of one platform and class from Kafka to the provider and to their outcomes.
//
// The two types to know are [Lane], one engine for every platform and class, and [Provider], a platform's half of it:
// an encoder makes the request, a transport carries it, a classifier reads the answer. [Platform] is all of one platform
// in a process: its lanes, and the hop that brings back what was put off.
//
// Within a lane each [Destination], which is what a provider limits, has its own queue, limit and state, so that one that
// is slow, waits or is stopped holds nobody else's deliveries.
package senders
