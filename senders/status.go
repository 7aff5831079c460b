package senders

import (
	"context"
	"log/slog"
	"math"
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
	ended   []sample
	written stream.Repeated
}

// statusTimeout is how long a broker may take for a status, and an answer of it to come.
const statusTimeout = 2 * time.Second

// refusedAtMost is how many reports, one a second, may be lost before it is said.
const refusedAtMost = 15

type sample struct {
	at time.Time
	n  uint64
}

func newReporter(l *Lane) (*reporter, error) {
	client, err := l.Kafka.Client(
		// A status that Kafka did not take in a few seconds is worth nothing, and the next one waits for no answer to it: a
		// broker that stood still would be asked again only 20 s later. Which of two comes last does not matter.
		kgo.RecordDeliveryTimeout(3*time.Second),
		kgo.ProduceRequestTimeout(statusTimeout),
		kgo.RequestTimeoutOverhead(statusTimeout),
		kgo.DisableIdempotentWrite(),
		kgo.MaxBufferedRecords(4),
	)
	if err != nil {
		return nil, err
	}
	key := schemas.Key(schemas.PlatformName(l.Provider.Platform()), schemas.ClassName(l.Class), l.Kafka.Instance)
	return &reporter{lane: l, client: client, key: key, ended: []sample{{at: time.Now()}}, written: stream.Repeated{
		Fails: "the lane's status cannot be written: nobody sees where it stands, and nothing is expanded by how fast it drains",
		Works: "the lane's status is written again", Level: slog.LevelError, After: refusedAtMost,
	}}, nil
}

// report writes one status.
func (r *reporter) report(now time.Time) {
	r.client.TryProduce(context.Background(), r.record(encode(r.status(now))), r.written.Wrote(r.lane.Kafka, r.lane.log))
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
	if err := r.client.ProduceSync(ctx, r.record(nil)).FirstErr(); err != nil && !r.lane.Kafka.Away() {
		r.lane.log.Warn("the lane's status could not be taken away; it is left out by its age", "err", stream.Explain(err))
	}
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
	for _, p := range l.putOff.consumer.Stats() {
		s.Retrying += backlog(p)
	}
	slices.Sort(s.Partitions)
	for _, d := range l.all() {
		ds := d.status(now)
		s.InFlight += ds.InFlight
		s.OldestMs = max(s.OldestMs, d.oldest(now).Milliseconds())
		s.Destinations = append(s.Destinations, ds)
	}
	s.OldestMs = max(s.OldestMs, l.putOff.oldest(now).Milliseconds())
	slices.SortFunc(s.Destinations, func(a, b *pb.DestinationStatus) int {
		return strings.Compare(a.App+"/"+a.Name, b.App+"/"+b.Name)
	})
	return s
}

// backlog is what a partition has left to do: what is in the window, and what has not been fetched. What was aborted counts
// for nothing once the window is past it.
func backlog(p stream.PartitionStats) uint64 { return uint64(int64(p.Unfinished) + p.Unfetched) }

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

// oldest is how long ago the oldest delivery that waits was made, whatever retry topics it has been on; or when none waits,
// roughly, one in flight.
func (d *destination) oldest(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := int64(math.MaxInt64)
	for _, l := range d.queue.runs {
		for _, j := range l.jobs {
			first = min(first, j.created)
		}
	}
	for i := range d.suspense.list {
		first = min(first, d.suspense.list[i].created)
	}
	switch {
	case first < math.MaxInt64:
		return max(0, now.Sub(time.UnixMilli(first)))
	case d.flight.n > 0:
		return min(now.Sub(d.busy), d.timeout)
	}
	return 0
}
