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

// Backlog asks Kafka how many records of a topic a consumer of this name has not done, whoever runs it and whether
// anybody does. What is done above the lowest unfinished record does not count: the completion map is read with the
// offset. Transaction markers do count, one a partition and commit. Topic is without prefix.
func Backlog(ctx context.Context, k *Kafka, adm *kadm.Client, name, topic string) (int64, error) {
	group, full := k.Prefix+name, k.Topic(topic)
	starts, ends, err := offsets(ctx, adm, full)
	if err != nil {
		return 0, fmt.Errorf("list offsets: %w", err)
	}
	committed, err := adm.FetchOffsetsForTopics(ctx, group, full)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // it has never run
		return 0, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	var backlog int64
	for partition, end := range ends {
		at, ok := committed.Lookup(full, partition)
		if !ok || at.Err != nil || at.At < starts[partition] {
			backlog += end - starts[partition]
			continue
		}
		backlog += max(0, end-at.At-doneAbove(at.At, at.Metadata))
	}
	return backlog, nil
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

// doneAbove counts the offsets that a completion map marks. One that cannot be read marks none.
func doneAbove(base int64, meta string) (n int64) {
	done, err := decodeProgress(base, meta)
	if err != nil {
		return 0
	}
	for _, s := range done {
		n += s.to - s.from
	}
	return n
}
