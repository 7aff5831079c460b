package senders

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// rateOver is how many seconds the drain rate is taken over.
const rateOver = 10

// countEvery is how often Kafka is asked how many partitions the lane has.
const countEvery = 10 * time.Second

// reporter writes the lane's status to belfry.lanes. It has a client of its own: status must not wait behind anything,
// nor anything behind it.
type reporter struct {
	lane   *Lane
	client *kgo.Client
	key    []byte
	// ended is the count of ends at the start and at each of the last reports.
	ended []sample
}

type sample struct {
	at time.Time
	n  uint64
}

func newReporter(l *Lane) (*reporter, error) {
	client, err := l.Kafka.Client(
		// A status that Kafka did not take in a few seconds is worth nothing.
		kgo.RecordDeliveryTimeout(3*time.Second),
		kgo.MaxBufferedRecords(4),
	)
	if err != nil {
		return nil, err
	}
	key := schemas.Key(schemas.PlatformName(l.Provider.Platform()), schemas.ClassName(l.Class), l.Kafka.Instance)
	return &reporter{lane: l, client: client, key: key, ended: []sample{{at: time.Now()}}}, nil
}

// report writes one status. When Kafka does not take it, that shows in its age, and the consumer's log says why.
func (r *reporter) report(now time.Time) {
	r.client.TryProduce(context.Background(), r.record(encode(r.status(now))), nil)
}

func (r *reporter) record(value []byte) *kgo.Record {
	return &kgo.Record{Topic: r.lane.Kafka.Topic(schemas.TopicLanes), Key: r.key, Value: value}
}

// countPartitions keeps count of the lane's partitions until ctx ends: an operator may add some.
func (r *reporter) countPartitions(ctx context.Context) {
	l := r.lane
	topic := l.Kafka.Topic(l.topic)
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, countEvery)
		topics, err := kadm.NewClient(r.client).ListTopics(asking, topic)
		cancel()
		if n := len(topics[topic].Partitions); err == nil && n > 0 {
			l.partitions.Store(int32(n))
		}
		select {
		case <-ctx.Done():
		case <-time.After(countEvery):
		}
	}
}

// close takes the instance's status away: it works on nothing any more.
func (r *reporter) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r.client.ProduceSync(ctx, r.record(nil))
	r.client.Close()
}

// status is where the lane stands.
func (r *reporter) status(now time.Time) *pb.LaneStatus {
	l := r.lane
	s := &pb.LaneStatus{
		Platform: l.Provider.Platform(), Class: l.Class, Instance: l.Kafka.Instance,
		At: now.UnixMilli(), DrainRate: r.rate(now),
	}
	for _, p := range l.consumer.Stats() {
		s.Partitions = append(s.Partitions, p.Partition)
		s.InWindow += uint64(p.Unfinished)
		s.Backlog += backlog(p)
	}
	slices.Sort(s.Partitions)
	for _, d := range l.all() {
		ds := d.status(now)
		s.InFlight += ds.InFlight
		s.OldestMs = max(s.OldestMs, d.oldest(now).Milliseconds())
		s.Destinations = append(s.Destinations, ds)
	}
	slices.SortFunc(s.Destinations, func(a, b *pb.DestinationStatus) int {
		return strings.Compare(a.App+"/"+a.Name, b.App+"/"+b.Name)
	})
	return s
}

// backlog is what a partition has left to do: what is in the window, and what has not been fetched.
func backlog(p stream.PartitionStats) uint64 {
	if p.Committed < 0 {
		return uint64(p.Unfinished)
	}
	return uint64(max(int64(p.Unfinished), p.End-p.Committed-int64(p.Held-p.Unfinished)))
}

// rate is the ends a second over the last rateOver seconds. What is put off is not an end: a lane that only parks does
// not drain.
func (r *reporter) rate(now time.Time) float64 {
	r.ended = append(r.ended, sample{now, r.lane.finished.Load()})
	if len(r.ended) > rateOver+1 {
		r.ended = r.ended[1:]
	}
	first, last := r.ended[0], r.ended[len(r.ended)-1]
	if span := last.at.Sub(first.at).Seconds(); span > 0 {
		return float64(last.n-first.n) / span
	}
	return 0
}

// oldest is how long the record that has waited longest has lain on the topic: the first in the queue, or when none
// waits, roughly, one in flight.
func (d *destination) oldest(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.queue.len() > 0:
		return max(0, now.Sub(d.queue.oldest().task.Timestamp))
	case d.inFlight > 0:
		return min(now.Sub(d.busy), d.timeout)
	}
	return 0
}
