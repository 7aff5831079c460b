// Package senders is the lane: deliveries of one platform and class from Kafka to the provider and to their outcomes.
//
// The two types to know are [Lane], one engine for every platform and class, and [Provider], a platform's half of it:
// an encoder makes the request, a transport carries it, a classifier reads the answer.
package senders
