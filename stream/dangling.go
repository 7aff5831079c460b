package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// danglingTail is how far from a log's end a transaction may lie that was open when the broker was killed: each consumer
// has one at a time, of about commitRecords, and all others may have written since.
const danglingTail = 10 * commitRecords

// producer is who has written a transaction.
type producer struct {
	id    int64
	epoch int16
}

// endDangling writes the end of every transaction that a broker had open when it was killed. kfake takes them for aborted
// when it starts again, but writes no marker; and to a reader a producer stays aborted until its marker comes, so that
// all that it commits later would be passed over. Nobody may produce meanwhile.
func endDangling(ctx context.Context, brokers []string) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	starts, err := adm.ListStartOffsets(ctx)
	if err != nil {
		return fmt.Errorf("where logs begin: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx)
	if err != nil {
		return fmt.Errorf("where logs end: %w", err)
	}
	from, left := map[string]map[int32]kgo.Offset{}, map[tp]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, ok := starts.Lookup(end.Topic, end.Partition)
		if !ok || start.Offset >= end.Offset {
			return
		}
		if from[end.Topic] == nil {
			from[end.Topic] = map[int32]kgo.Offset{}
		}
		from[end.Topic][end.Partition] = kgo.NewOffset().At(max(start.Offset, end.Offset-danglingTail))
		left[tp{end.Topic, end.Partition}] = end.Offset
	})
	client.AddConsumePartitions(from)
	var markers []kadm.TxnMarkers
	for p, topics := range openAt(ctx, client, left) {
		markers = append(markers, kadm.TxnMarkers{ProducerID: p.id, ProducerEpoch: p.epoch, Topics: topics})
	}
	if len(markers) == 0 {
		return ctx.Err()
	}
	written, err := adm.WriteTxnMarkers(ctx, markers...)
	if err != nil {
		return fmt.Errorf("write markers: %w", err)
	}
	return markerError(written)
}

// openAt reads logs up to their ends and returns the transactions without one, by producer.
func openAt(ctx context.Context, client *kgo.Client, left map[tp]int64) map[producer]kadm.TopicsSet {
	open := map[tp]map[int64]int16{}
	readTo(ctx, client, left, func(r *kgo.Record) {
		at := tp{r.Topic, r.Partition}
		switch {
		case r.Attrs.IsControl():
			delete(open[at], r.ProducerID)
		case r.Attrs.IsTransactional():
			if open[at] == nil {
				open[at] = map[int64]int16{}
			}
			open[at][r.ProducerID] = r.ProducerEpoch
		}
	})
	found := map[producer]kadm.TopicsSet{}
	for at, producers := range open {
		for id, epoch := range producers {
			p := producer{id, epoch}
			topics := found[p]
			topics.Add(at.topic, at.partition)
			found[p] = topics
		}
	}
	return found
}

// readTo calls each with all records up to the offsets of left, or as many as there are: the last ones of a compacted log
// may be gone.
func readTo(ctx context.Context, client *kgo.Client, left map[tp]int64, each func(*kgo.Record)) {
	for len(left) > 0 {
		poll, cancel := context.WithTimeout(ctx, 3*time.Second)
		fetches := client.PollFetches(poll)
		cancel()
		if fetches.NumRecords() == 0 {
			return
		}
		for r := range fetches.RecordsAll() {
			each(r)
			if at := (tp{r.Topic, r.Partition}); r.Offset >= left[at]-1 {
				delete(left, at)
			}
		}
	}
}
