package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// slowDrain: what drains within so many times the time between two readings need not be counted exactly.
	slowDrain = 20
	// scanAtMost is how many fetches, of up to 1 MiB, one reading makes of all partitions; the next one goes on from there.
	scanAtMost = 16
	// keepVoids is how many stretches are remembered of one partition. More count as backlog.
	keepVoids = 1 << 16
)

// Meter measures how many records of a topic a consumer has not done, again and again, whoever runs it and whether anybody
// does. It starts from what Backlog counts, by offsets, and takes away what no reader is given: markers, and records of
// transactions that were aborted. Those are found by reading, which costs as much as consuming: so it is done where the
// consumer does not drain what there is, each record once, and no more than 16 MiB a reading. What is not read yet counts as
// backlog. A Meter is for one goroutine.
type Meter struct {
	k           *Kafka
	client      *kgo.Client
	name, topic string
	id          kadm.TopicID
	gauges      map[int32]*gauge
}

// Reading is what a Meter read.
type Reading struct {
	// Backlog is how many records are not done, or a few more; Void how many offsets among them hold nothing.
	Backlog, Void int64
	// Inexact is why records could not be read to see which of them were aborted, or nil.
	Inexact error
}

// gauge is one partition's.
type gauge struct {
	standing
	moved int64 // how far its position came since the reading before; -1 at the first
	// scanned is up to where voids are known, in order.
	scanned int64
	voids   []span
}

// standing is where a group stands on one partition.
type standing struct {
	base, end int64
	done      []span // above base
}

// NewMeter makes a meter for a consumer of this name. topic is without prefix.
func NewMeter(k *Kafka, client *kgo.Client, name, topic string) *Meter {
	return &Meter{k: k, client: client, name: name, topic: topic, gauges: map[int32]*gauge{}}
}

// Read measures now. It fails when Kafka does not tell the offsets.
func (m *Meter) Read(ctx context.Context) (Reading, error) {
	stand, err := stands(ctx, m.k, kadm.NewClient(m.client), m.name, m.topic)
	if err != nil {
		return Reading{}, err
	}
	m.note(stand)
	var r Reading
	r.Inexact = m.scan(ctx)
	for _, g := range m.gauges {
		void := g.void()
		r.Void += void
		r.Backlog += g.left() - void
	}
	return r, nil
}

// note takes the positions over.
func (m *Meter) note(stand map[int32]standing) {
	maps.DeleteFunc(m.gauges, func(p int32, _ *gauge) bool { _, ok := stand[p]; return !ok })
	for p, now := range stand {
		g := m.gauges[p]
		if g == nil || now.base < g.base { // an earlier one: it was set by hand, or the topic is another
			m.gauges[p] = &gauge{standing: now, moved: -1, scanned: now.base}
			continue
		}
		g.moved, g.standing = now.base-g.base, now
		g.scanned = max(g.scanned, now.base)
		g.voids = slices.DeleteFunc(g.voids, func(v span) bool { return v.to <= now.base })
	}
}

// scan reads on, of the partitions that do not drain.
func (m *Meter) scan(ctx context.Context) error {
	var slow []int32
	for p, g := range m.gauges {
		if g.moved >= 0 && g.scanned < g.end && slowDrain*g.moved < g.left() {
			slow = append(slow, p)
		}
	}
	if len(slow) == 0 {
		return nil
	}
	full := m.k.Topic(m.topic)
	found, err := kadm.NewClient(m.client).ListTopics(ctx, full)
	if err != nil {
		return fmt.Errorf("find the leaders of %s: %w", full, err)
	}
	topic := found[full]
	if topic.Err != nil {
		return fmt.Errorf("find the leaders of %s: %w", full, topic.Err)
	}
	if m.id != topic.ID { // it was deleted and made again, or this is the first look
		m.id = topic.ID
		for _, g := range m.gauges {
			g.scanned, g.voids = g.base, nil
		}
	}
	for fetches := 0; fetches < scanAtMost && len(slow) > 0; {
		still := slow[:0]
		for _, p := range slow {
			broker := m.client.Broker(int(topic.Partitions[p].Leader))
			more, err := m.gauges[p].read(ctx, broker, topic, p)
			if err != nil {
				return fmt.Errorf("read %s/%d from %d: %w", full, p, m.gauges[p].scanned, err)
			}
			if fetches++; more {
				still = append(still, p)
			}
		}
		slow = still
	}
	return nil
}

// read fetches once. There is more when it came on and is not at the end.
func (g *gauge) read(ctx context.Context, broker *kgo.Broker, topic kadm.TopicDetail, partition int32) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	records, next, err := fetchOnce(ctx, broker, topic, partition, g.scanned)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return false, nil // it was deleted meanwhile: the next reading's positions tell
	}
	if err != nil || next <= g.scanned {
		return false, err // what follows is not decided
	}
	at := g.scanned
	for _, r := range records {
		g.skip(at, r.Offset)
		at = r.Offset + 1
	}
	g.skip(at, next)
	g.scanned = next
	return next < g.end, nil
}

// skip notes that nothing is in [from, to).
func (g *gauge) skip(from, to int64) {
	n := len(g.voids)
	switch {
	case from >= to:
	case n > 0 && g.voids[n-1].to == from:
		g.voids[n-1].to = to
	case n < keepVoids:
		g.voids = append(g.voids, span{from, to})
	}
}

// left counts the offsets that are not done.
func (s standing) left() int64 {
	n := s.end - s.base
	for _, d := range s.done {
		n -= max(0, min(d.to, s.end)-d.from)
	}
	return max(0, n)
}

// void counts the offsets among those that hold nothing.
func (g *gauge) void() (n int64) {
	done := g.done
	for _, v := range g.voids {
		from, to := max(v.from, g.base), min(v.to, g.end)
		if from >= to {
			continue
		}
		n += to - from
		for len(done) > 0 && done[0].to <= from {
			done = done[1:]
		}
		for _, d := range done {
			if d.from >= to {
				break
			}
			n -= min(d.to, to) - max(d.from, from)
		}
	}
	return n
}
