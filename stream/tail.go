package stream

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// NothingCommitted reports whether [from, end) of a partition holds no committed record, nor one of a transaction that is
// still open. Whoever reads up to an end must ask this when nothing more comes: the last records before it may be
// aborted ones, which no reader is given, and a transaction that was open when the embedded broker was killed has not
// even a marker behind it. Topic is a full name.
func NothingCommitted(ctx context.Context, client *kgo.Client, topic string, partition int32, from, end int64) (bool, error) {
	if from >= end {
		return true, nil
	}
	found, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return false, fmt.Errorf("find the leader of %s/%d: %w", topic, partition, err)
	}
	at := found[topic].Partitions[partition]
	for from < end {
		next, empty, err := skim(ctx, client.Broker(int(at.Leader)), found[topic], partition, from)
		switch {
		case err != nil:
			return false, fmt.Errorf("read %s/%d from %d: %w", topic, partition, from, err)
		case !empty || next <= from: // there is one, or what follows is not decided
			return false, nil
		}
		from = next
	}
	return true, nil
}

// skim fetches once, and tells whether it was all aborted or markers, and up to where.
func skim(ctx context.Context, broker *kgo.Broker, topic kadm.TopicDetail, partition int32, from int64) (next int64, empty bool, err error) {
	records, next, err := fetchOnce(ctx, broker, topic, partition, from)
	return next, err == nil && len(records) == 0, err
}

// fetchOnce fetches up to 1 MiB of a partition, or one batch: its committed records, and the offset after what was read.
func fetchOnce(ctx context.Context, broker *kgo.Broker, topic kadm.TopicDetail, partition int32, from int64) (records []*kgo.Record, next int64, err error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MaxBytes, req.IsolationLevel = 0, 1<<20, 1
	req.SessionEpoch = -1 // no fetch session
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, from, 1<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic.Topic, topic.ID
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	answer, err := broker.RetriableRequest(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	resp := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, err
	}
	next = from
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			got, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
				Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: topic.Topic, Partition: partition,
			}, &resp.Topics[i].Partitions[j], kgo.DefaultDecompressor(), nil)
			if got.Err != nil {
				return nil, 0, got.Err
			}
			records = append(records, got.Records...)
			next = max(next, after)
		}
	}
	return records, next, nil
}
