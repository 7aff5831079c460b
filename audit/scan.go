package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
)

// Scan calls each with every record that was committed on a topic when it was called, and not written before since.
// topic is without prefix. Records of one partition come in order.
func Scan(ctx context.Context, k *stream.Kafka, topic string, since time.Time, each func(*kgo.Record)) error {
	if err := scan(ctx, k, k.Topic(topic), since, each); err != nil {
		return fmt.Errorf("read topic %s: %w", k.Topic(topic), err)
	}
	return nil
}

func scan(ctx context.Context, k *stream.Kafka, name string, since time.Time, each func(*kgo.Record)) error {
	client, err := k.Client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(8<<20),
		kgo.KeepControlRecords(), // a transaction's marker may be the last there is
	)
	if err != nil {
		return err
	}
	defer client.Close()
	from, to, err := span(ctx, kadm.NewClient(client), name, since)
	if err != nil || len(to) == 0 {
		return err
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{name: from})
	for len(to) > 0 {
		fetches := client.PollFetches(ctx)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			k.Log.Warn("reading a topic for the audit", "topic", e.Topic, "partition", e.Partition, "err", e.Err)
		}
		for r := range fetches.RecordsAll() {
			end, open := to[r.Partition]
			if open && r.Offset < end && !r.Attrs.IsControl() {
				each(r)
			}
			if open && r.Offset >= end-1 {
				delete(to, r.Partition)
			}
		}
	}
	return nil
}

// span is where to read each partition that holds something, from and up to.
func span(ctx context.Context, adm *kadm.Client, topic string, since time.Time) (map[int32]kgo.Offset, map[int32]int64, error) {
	list := adm.ListStartOffsets
	if !since.IsZero() {
		list = func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return adm.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...)
		}
	}
	starts, err := list(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("where it begins: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("where it ends: %w", err)
	}
	from, to := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			from[end.Partition], to[end.Partition] = kgo.NewOffset().At(start.Offset), end.Offset
		}
	})
	return from, to, nil
}
