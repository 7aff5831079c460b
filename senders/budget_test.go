package senders

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream/streamtest"
)

// hop is the retry topics in front of one destination, and counts what passes.
type hop struct {
	*bench
	d *destination
	// out are in the lane, topic on the retry topics.
	out   []*job
	topic []waitingJob
	// copies counts the records on retry topics; most is the most of them that waited in a shorter tier than the longest.
	copies, attempts, most int
}

type waitingJob struct {
	j   *job
	due time.Time
	// surplus says that it lies on the longest tier, again that it was asked before.
	surplus, again bool
	// attempt says that it is there for its own sake, since at.
	attempt bool
	at      time.Time
}

// pass lets a second go by, takes what was put off and brings back what is due or wanted.
func (h *hop) pass() {
	h.bench.pass(time.Second)
	now := time.Now()
	var queued []*job
	for _, j := range h.out {
		v, ended := h.verdict(j)
		if !ended || v.Next == End {
			queued = append(queued, j)
			continue
		}
		if v.Next == Later && j.asked {
			h.attempts++
		}
		h.copies++
		tier, due := retryAt(v.After, now)
		if v.Next == putOff {
			tier, due = parkAt(v.After, math.MaxInt64, now)
		}
		back := h.job(h.d, 24*time.Hour)
		back.delivery.Device, back.again = j.delivery.Device, j.again || v.Next == Later
		back.delivery.Run, back.name, back.run = j.name, j.name, j.run
		h.topic = append(h.topic, waitingJob{back, due, tier.Delay == surplusFor, back.again, v.Next == Later, now})
	}
	h.out = queued
	short, failed := 0, 0
	for _, w := range h.topic {
		if w.attempt {
			failed++
		}
	}
	var waiting []waitingJob
	for _, w := range h.topic {
		early := !w.attempt && h.d.wants(w.j.name, w.again, now)
		called := w.attempt && now.Sub(w.at) >= w.due.Sub(w.at)/earlyPart && h.d.recalls(w.j.name, w.at, failed, now)
		if early || called || !now.Before(w.due) {
			if early && now.Before(w.due) {
				h.d.unpark(w.due, w.again)
			}
			w.j.early = called && now.Before(w.due)
			h.out = append(h.out, w.j)
			h.d.push([]*job{w.j}, now)
			continue
		}
		waiting = append(waiting, w)
		if !w.surplus {
			short++
		}
	}
	h.topic, h.most = waiting, max(h.most, short)
}

// Two sick destinations have a backlog far above the budgets; a third shares their partitions. What is over the budget is
// copied once in a quarter of an hour's outage, and all go when the destination is well.
func TestBacklogAboveTheBudgetIsCopiedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const backlog, budgeted = 2000, 200
		var down atomic.Bool
		down.Store(true)
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			if down.Load() && r.Destination.Name != "w" {
				return status(503)
			}
			return status(200)
		})
		b.budget.parked, b.budget.lane = budgeted, budgeted+100
		sick, other, well := b.destination("s"), b.destination("o"), b.destination("w")
		h := &hop{bench: b, d: sick, out: b.push(sick, backlog)}
		others := b.push(other, backlog)
		for range 5 {
			h.pass()
		}
		if held := sick.shares[0].records + other.shares[0].records; held > b.budget.window.records {
			t.Errorf("two sick destinations hold %d records of the window, of at most %d", held, b.budget.window.records)
		}
		parked := sick.look(time.Now()).parked + other.look(time.Now()).parked
		// Some are back already, as probes, and each destination has booked by itself since the last look.
		if parked > budgeted+100+startLimit || parked < budgeted {
			t.Errorf("%d are parked within the budgets of %d and of %d for the lane", parked, budgeted, budgeted+100)
		}
		const tried = startLimit + illAtOnce + 600 // until it was found ill, and as probes in 6 s
		if s := other.status(time.Now()); s.Parked < backlog-tried {
			t.Errorf("status says %d parked", s.Parked)
		}
		going := b.push(well, 1000)
		b.pass(tickEvery)
		if got := b.count(going)[End]; got != 1000 {
			t.Errorf("%d of 1000 of the well destination went", got)
		}
		if got := b.count(others)[putOff]; got < backlog-b.budget.window.records-tried {
			t.Errorf("%d of %d made room at the other destination", got, backlog)
		}
		for range 900 {
			h.pass()
		}
		if stateOf(sick) != stateWaiting {
			t.Fatalf("the destination is %v: the outage did not strike", stateOf(sick))
		}
		// Once when it came, and the rounds of those within the budget.
		if most := backlog + budgeted*parkRounds; h.copies > most || h.copies < backlog {
			t.Errorf("%d records on retry topics for %d deliveries, at most %d are promised", h.copies, backlog, most)
		}
		// What failed on its own account does not count, nor does what the lane has not taken in yet.
		if h.most > budgeted+h.attempts+b.budget.window.records {
			t.Errorf("%d waited in the shorter tiers", h.most)
		}
		down.Store(false)
		for range 180 {
			h.pass()
		}
		if accepted := b.count(h.out)[End]; accepted != backlog {
			t.Errorf("%d of %d are through three minutes after the outage, %d wait", accepted, backlog, len(h.topic))
		}
	})
}

// A destination that is slow takes back what was put off at its own pace, also when nothing new comes for it.
func TestSlowDestinationTakesBackWhatItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			if r.Destination.Name == "s" {
				time.Sleep(4 * time.Second)
			}
			return status(200)
		})
		b.budget.parked = 200
		d, quick := b.destination("s"), b.destination("q")
		h := &hop{bench: b, d: d, out: b.push(d, 3000)}
		for range 240 {
			b.push(quick, 1)
			h.pass()
		}
		if h.copies == 0 {
			t.Fatal("nothing was put off: the destination was not slow")
		}
		if got := b.count(h.out)[End]; got != 3000 {
			t.Errorf("%d of 3000 went in four minutes, %d wait", got, len(h.topic))
		}
		if h.copies > 3000*3/2 {
			t.Errorf("%d records on retry topics for 3000 deliveries", h.copies)
		}
	})
}

// Before its end a parked delivery takes the longest tier that is left to it, rather than the shortest again and again.
func TestParkedDeliveryThatEndsSoonTakesFewRounds(t *testing.T) {
	now := time.Unix(0, 0)
	for ttl, want := range map[time.Duration]time.Duration{
		2 * time.Hour:    time.Hour,
		30 * time.Minute: 10 * time.Minute,
		time.Minute:      30 * time.Second,
		3 * time.Second:  5 * time.Second, // postpone ends it
	} {
		tier, due := parkAt(surplusFor, now.Add(ttl).UnixMilli(), now)
		if tier.Delay != want || !due.Equal(now.Add(want)) {
			t.Errorf("with %s left it waits %s, until %s", ttl, tier.Delay, due)
		}
	}
}

func TestTallyForgetsWhatFellDue(t *testing.T) {
	var c tally
	now := time.Unix(1000, 0)
	for i := range 10 {
		c.add(now.Add(time.Duration(i) * time.Second))
	}
	if !c.remove(now.Add(4*time.Second)) || c.remove(now.Add(time.Minute)) {
		t.Error("took off what was not there, or not what was")
	}
	for _, step := range []struct{ after, want int }{{0, 9}, {3, 6}, {5, 5}, {60, 0}} {
		if got := c.count(now.Add(time.Duration(step.after) * time.Second)); got != step.want {
			t.Errorf("after %d s: %d, not %d", step.after, got, step.want)
		}
	}
}

// On a log: a backlog of several windows and budgets for a destination that hangs lies before a well one's, on one
// partition. The well one's go, and the others end once when theirs is well again.
func TestBacklogAboveTheBudgetEndsOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the destination counts as stuck")
	}
	const backlog, others, budgeted = 2 * windowRecords, 500, 1000
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	client := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range backlog + others {
		token := "s"
		if i >= backlog {
			token = "w"
		}
		d := delivery("spring", fmt.Sprint(token, i), token)
		d.ExpiresAt = time.Now().Add(24 * time.Hour).UnixMilli()
		client.Produce(t.Context(), onTopic(k.Topic(sendBulk), d), nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	p := &fakeProvider{platform: fcm, ceiling: 100, answer: func(ctx context.Context, r *Request) (*wire.Result, error) {
		if r.Destination.Name == "s" {
			select {
			case <-over:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return status(200)
	}}
	runs := NewRuns(k, fcm)
	streamtest.Run(t, runs.Run)
	l := NewLane(Options{Kafka: k, Provider: p, Class: bulk, Runs: runs, Control: watched(t, k), Rates: NewRates(), Timeout: 4 * time.Second})
	l.budget.parked, l.budget.lane = budgeted, 2*budgeted
	streamtest.Run(t, l.Run)
	streamtest.Run(t, l.putOff.run)

	accepted := map[string]bool{}
	accept := func(r *kgo.Record) {
		for _, res := range batchOf(t, r.Value).Results {
			if res.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
				continue
			}
			if accepted[string(res.Delivery)] {
				t.Error("a delivery was accepted twice")
			}
			accepted[string(res.Delivery)] = true
		}
	}
	streamtest.Read(t, k, func(r *kgo.Record) bool { accept(r); return len(accepted) < others }, results)
	surplus := map[string]bool{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		surplus[string(r.Key)] = true
		return len(surplus) < backlog-windowRecords
	}, schemas.TopicRetry(fcm, pb.Class_CLASS_BULK, schemas.Tiers[len(schemas.Tiers)-1]))
	for _, d := range l.all() {
		if s := d.look(time.Now()); s.parked > budgeted {
			t.Errorf("%d are parked at %s, with a budget of %d", s.parked, d.Name, budgeted)
		}
	}
	close(over)
	clear(accepted)
	streamtest.Read(t, k, func(r *kgo.Record) bool { accept(r); return len(accepted) < backlog+others }, results)
}
