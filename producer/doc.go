// Package producer is the way in: the HTTP API that registers devices, sends transactional messages, runs campaigns and
// takes events. It answers 202 only to what Kafka holds on all in-sync replicas.
//
// The two types to know are [Server], which serves the API, and [Problem], which is every answer that is not a success.
package producer
