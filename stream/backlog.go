package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Backlog asks Kafka, once, how many records of a topic a consumer of this name has not done, whoever runs it and whether
// anybody does. What is done above the lowest unfinished record does not count: the completion map is read with the
// offset. It counts offsets, so transaction markers and aborted records that the consumer has not come to do count: where that
// matters, use a Meter. Topic is without prefix.
func Backlog(ctx context.Context, k *Kafka, adm *kadm.Client, name, topic string) (backlog int64, err error) {
	stand, err := stands(ctx, k, adm, name, topic)
	for _, s := range stand {
		backlog += s.left()
	}
	return backlog, err
}

// stands finds where a consumer stands on each partition that holds anything.
func stands(ctx context.Context, k *Kafka, adm *kadm.Client, name, topic string) (map[int32]standing, error) {
	group, full := k.Prefix+name, k.Topic(topic)
	// First, so that no end is older: a position beyond the end is another topic's of that name.
	committed, err := adm.FetchOffsetsForTopics(ctx, group, full)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // it has never run
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	starts, ends, err := offsets(ctx, adm, full)
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	all := map[int32]standing{}
	for partition, end := range ends {
		s := standing{base: starts[partition], end: end}
		if at, ok := committed.Lookup(full, partition); ok && at.Err == nil && at.At >= s.base && at.At <= end {
			s.base = at.At
			s.done, _ = decodeProgress(at.At, at.Metadata) // one that cannot be read marks nothing
		}
		all[partition] = s
	}
	return all, nil
}

// CaughtUp returns when a consumer of this name has done all that a topic holds now, as far as it has committed, whoever runs
// it. Until then it asks every 50 ms. Its error is Kafka's, or that ctx is over. Topic is without prefix.
func CaughtUp(ctx context.Context, k *Kafka, client *kgo.Client, name, topic string) error {
	adm, full := kadm.NewClient(client), k.Topic(topic)
	starts, ends, err := offsets(ctx, adm, full)
	if err != nil {
		return fmt.Errorf("list offsets: %w", err)
	}
	for {
		committed, err := adm.FetchOffsetsForTopics(ctx, k.Prefix+name, full)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return fmt.Errorf("fetch offsets of group %s: %w", k.Prefix+name, err)
		}
		for partition, end := range ends {
			from := starts[partition]
			if at, ok := committed.Lookup(full, partition); ok && at.Err == nil {
				from = max(from, at.At)
			}
			done, err := NothingCommitted(ctx, client, full, partition, from, end) // markers are nothing to do
			if err != nil {
				return err
			}
			if done {
				delete(ends, partition)
			}
		}
		if len(ends) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
