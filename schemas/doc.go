// Package schemas holds what crosses a topic: the records (belfry/v1/*.proto, generated into belfryv1), the topic plan
// (Plan), and the identities derived from them (DeliveryID, Shard). It imports nothing of Belfry's.
package schemas
