//go:build !race

package senders

import (
	"context"
	"testing"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
)

// The way of a delivery through a lane makes no allocation of its own, but for what a batch makes now and then: these tests
// fail when it makes more than was recorded, for a batch of batchAtMost.

func record(tb testing.TB) (value []byte, m *message.Compiled) {
	m, err := message.Compile(&pb.Message{Content: &pb.Content{Title: "Hello {{ attributes.name }}"}}, message.Campaign)
	if err != nil {
		tb.Fatal(err)
	}
	return encode(delivery("spring", "d", "w")), m
}

func TestAllocationsLook(t *testing.T) {
	value, _ := record(t)
	var p parcel
	got := testing.AllocsPerRun(100, func() {
		if _, bad := p.look(value, fcm, bulk); bad != nil {
			t.Fatal(bad)
		}
		p.empty()
	})
	if got > 0 {
		t.Errorf("%v allocations a record, none recorded", got)
	}
}

// quickProvider answers at once, by what it has.
type quickProvider struct {
	fakeProvider
	results []wire.Result
}

func (*quickProvider) Encode(r *Request, d *pb.Delivery, _ *message.Compiled, _ time.Time) error {
	r.Delivery = d
	return nil
}

func (q *quickProvider) Send(batch []*Request) {
	q.results = q.results[:0]
	for _, r := range batch {
		q.results = append(q.results, wire.Result{Request: &r.Request, Status: 200})
	}
	batch[0].Handler.Answered(q.results)
}

func (*quickProvider) Classify(*Request, *wire.Result) Verdict { return accepted }

var accepted = Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}

func TestAllocationsFromQueueToAnswer(t *testing.T) {
	value, m := record(t)
	l := &Lane{}
	l.jobs.most, l.kits.most = keepJobs, keepKits
	ends := 0
	l.common.provider, l.common.timeout, l.common.life = &quickProvider{fakeProvider: fakeProvider{ceiling: 500}}, time.Minute, t.Context()
	l.common.finish = func(done []ended, _ time.Time) {
		ends += len(done)
		l.recycle(done)
	}
	valve := newValve(fcm, bulk, (&bench{}).restraint, NewRates())
	valve.own(1, 1)
	d := newDestination(Destination{App: "shop", Name: "w"}, valve.gates(Destination{App: "shop", Name: "w"}, 1e9), &l.common)
	task := &stream.Task{Value: value}
	ctx, now := context.Background(), time.Now()
	jobs := make([]*job, 0, batchAtMost)
	got := testing.AllocsPerRun(100, func() {
		jobs = l.jobs.take(jobs[:0], batchAtMost)
		for _, j := range jobs {
			j.task, j.ctx, j.message, j.name, j.expires = task, ctx, m, "spring", now.Add(time.Hour).UnixMilli()
		}
		d.push(jobs, now)
	})
	if ends != 101*batchAtMost {
		t.Fatalf("%d ended", ends)
	}
	const recorded = 8 // a run's line in the queue begins and grows
	if got > recorded {
		t.Errorf("%v allocations for %d deliveries, %d recorded", got, batchAtMost, recorded)
	}
}

func TestAllocationsOutcome(t *testing.T) {
	l := &Lane{results: "results"}
	p := &packer{lane: l}
	j := &job{task: &stream.Task{}, ctx: t.Context(), delivery: delivery("spring", "d", "w"), asked: true}
	now := time.Now()
	got := testing.AllocsPerRun(100, func() {
		for range batchAtMost {
			l.settle(p, j, accepted, now)
		}
		pile := &p.piles[0]
		if len(pile.tasks) != batchAtMost || len(pile.outs) != 1 {
			t.Fatalf("%d tasks, %d outputs", len(pile.tasks), len(pile.outs))
		}
		pile.reset()
	})
	if got > 0 {
		t.Errorf("%v allocations for %d outcomes, none recorded", got, batchAtMost)
	}
}
