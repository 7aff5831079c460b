package senders

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
)

// restrain puts a restraint into force, or lifts it with nil.
func (b *bench) restrain(n control.Name, r *pb.Restraint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r == nil {
		delete(b.restraints, n)
		return
	}
	r.At = time.Now().UnixMilli()
	b.restraints[n] = r
}

func takes(span time.Duration) func(context.Context, *Request) (*wire.Result, error) {
	return func(context.Context, *Request) (*wire.Result, error) {
		time.Sleep(span)
		return status(200)
	}
}

// refuses answers with code while on, and takes it else.
func refuses(on *atomic.Bool, code int, span time.Duration) func(context.Context, *Request) (*wire.Result, error) {
	return func(context.Context, *Request) (*wire.Result, error) {
		time.Sleep(span)
		if on.Load() {
			return status(code)
		}
		return status(200)
	}
}

func TestPauseStopsWhatIsNotInFlight(t *testing.T) {
	for _, name := range []control.Name{control.App("shop"), control.Destination(fcm, "shop", "w")} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, takes(300*time.Millisecond))
			d, other := b.destination("w"), b.destination("o")
			jobs := b.push(d, 1000)
			others := b.push(other, 1000)
			b.pass(200 * time.Millisecond)
			b.restrain(name, &pb.Restraint{Paused: true, Reason: "wrong link"})
			out := b.requestsTo(d)
			b.pass(2 * time.Second)
			s := d.status(time.Now())
			if s.State != statePaused || s.Reason != string(name)+": wrong link" || s.Parked != uint64(1000-out) {
				t.Errorf("status: %v", s)
			}
			b.pass(8 * time.Second)
			if got := b.requestsTo(d); got != out || out != startLimit-startLimit/(crowd+1) {
				t.Errorf("%s: %d requests after the pause, %d were out", name, got, out)
			}
			if got := b.count(jobs); got[End] != out || got[putOff] != 1000-out {
				t.Errorf("%s: %v; what was out must end, and the rest be put off without an attempt", name, got)
			}
			if done := b.count(others)[End]; (done == 1000) != (name != control.App("shop")) {
				t.Errorf("%s: another destination of the app ended %d", name, done)
			}
			more := b.push(d, 50)
			b.restrain(name, nil)
			b.pass(time.Second)
			if got := b.count(more)[End]; got != 50 {
				t.Errorf("%s: %d of 50 went after the resume", name, got)
			}
		})
	}
}

// A paused lane holds nobody else up, so what waits needs not to be put off: but what is over ends.
func TestPausedLaneWaitsInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, takes(time.Millisecond))
		b.restrain(control.Lane(fcm, bulk), &pb.Restraint{Paused: true})
		d := b.destination("w")
		jobs := b.push(d, 500)
		short := b.job(d, 3*time.Second)
		d.push([]*job{short}, time.Now())
		b.pass(time.Minute)
		if v, ended := b.verdict(short); !ended || v.Outcome != pb.Outcome_OUTCOME_EXPIRED {
			t.Errorf("what has expired: %v", v)
		}
		if got := b.count(jobs); len(got) > 0 || b.requestsTo(d) > 0 {
			t.Errorf("%v, %d requests, in a paused lane", got, b.requestsTo(d))
		}
		b.restrain(control.Lane(fcm, bulk), nil)
		b.pass(2 * time.Second)
		if got := b.count(jobs)[End]; got != 500 {
			t.Errorf("%d of 500 went after the resume", got)
		}
	})
}

// Every rate is kept, the lowest counts, and an instance keeps to its part.
func TestRatesAreKept(t *testing.T) {
	tests := map[string]struct {
		restraints map[control.Name]float64
		quota      float64
		want       float64
	}{
		"lane":        {map[control.Name]float64{control.Lane(fcm, bulk): 100}, 0, 100},
		"app":         {map[control.Name]float64{control.App("shop"): 200}, 0, 200},
		"destination": {map[control.Name]float64{control.Destination(fcm, "shop", "w"): 20, control.App("shop"): 100}, 0, 20},
		"quota":       {nil, 300, 300},
		"all":         {map[control.Name]float64{control.Lane(fcm, bulk): 100, control.App("shop"): 2}, 300, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const seconds, part = 20, 0.5
				b := newBench(t, takes(5*time.Millisecond))
				b.provider.rate = tt.quota
				b.own(6, 12)
				b.budget.window = share{1 << 20, 1 << 40}
				for n, rate := range tt.restraints {
					b.restrain(n, &pb.Restraint{PerSecond: rate})
				}
				d := b.destination("w")
				b.push(d, 10_000)
				b.pass(seconds * time.Second)
				want := tt.want * part * seconds
				if got := float64(b.requestsTo(d)); math.Abs(got-want) > 2+want/10 {
					t.Errorf("%v requests in %d s at %v/s, of which half is this instance's", got, seconds, tt.want)
				}
			})
		})
	}
}

// A rate is used whole, too, when most of what waits for it was put off to let others by: also while they go on, and afterwards.
func TestWhatWasPutOffUsesItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, seconds = 60, 60
		b := newBench(t, takes(5*time.Millisecond))
		b.restrain(control.Destination(fcm, "shop", "w"), &pb.Restraint{PerSecond: rate})
		d, other := b.destination("w"), b.destination("o")
		h := &hop{bench: b, d: d, out: b.push(d, 3*rate*seconds)}
		for _, beside := range []int{1, 0} {
			before := b.requestsTo(d)
			for range seconds {
				b.push(other, beside)
				h.pass()
			}
			if h.copies < rate*seconds {
				t.Fatalf("%d were put off only", h.copies)
			}
			if got := b.requestsTo(d) - before; got < rate*seconds*9/10 || got > rate*seconds*11/10 {
				t.Errorf("with %d a second beside it %d of %d went", beside, got, rate*seconds)
			}
		}
		if h.copies > 4*3*rate*seconds {
			t.Errorf("%d records on retry topics", h.copies)
		}
	})
}

// A campaign's rate also holds for what is on the topic already, and holds up no other campaign.
func TestCampaignsPaceIsKeptInTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, takes(5*time.Millisecond))
		d := b.destination("w")
		slow := &run{}
		slow.state.Store(int32(pb.CampaignState_CAMPAIGN_STATE_RUNNING))
		paced := b.ofRun(d, "slow", slow, 1000)
		free := b.ofRun(d, "free", nil, 1000)
		slow.rate.Store(math.Float64bits(10))
		for _, j := range append(paced, free...) {
			d.push([]*job{j}, time.Now())
		}
		b.pass(time.Second)
		if got := b.count(free)[End]; got != 1000 {
			t.Errorf("%d of 1000 of another campaign went", got)
		}
		b.pass(9 * time.Second)
		got := b.count(paced)
		if got[End] < 90 || got[End] > 110 {
			t.Errorf("%d went in 10 s at 10/s", got[End])
		}
		// 900 others would fill the window; what it may not hold waits elsewhere for its turn.
		if held := d.shares[0].records; held > b.budget.window.records {
			t.Errorf("%d records of the window are held", held)
		}
		var last time.Duration
		for _, j := range paced {
			if v, ok := b.verdict(j); ok && v.Next == putOff {
				last = max(last, v.After)
			}
		}
		if last < 30*time.Second {
			t.Errorf("the last of those put off comes back after %s", last)
		}
	})
}

// ofRun makes jobs of one run.
func (b *bench) ofRun(d *destination, name string, r *run, n int) []*job {
	jobs := make([]*job, n)
	for i := range jobs {
		jobs[i] = b.job(d, 24*time.Hour)
		jobs[i].delivery.Run, jobs[i].name, jobs[i].run = name, name, r
	}
	return jobs
}

// A campaign of a hundred behind one of ten thousand, at the same destination: its last goes before a tenth of the others.
func TestSmallCampaignIsNotBehindALargeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, takes(20*time.Millisecond))
		b.provider.ceiling = 32
		b.budget.window = share{1 << 20, 1 << 40}
		d := b.destination("w")
		for _, j := range b.ofRun(d, "large", nil, 10_000) {
			d.push([]*job{j}, time.Now())
		}
		for _, j := range b.ofRun(d, "small", nil, 100) {
			d.push([]*job{j}, time.Now())
		}
		b.pass(10 * time.Second)
		last := 0
		for i, r := range b.provider.requests() {
			if r.Delivery.Run == "small" {
				last = i
			}
		}
		if last == 0 || last > 1000 {
			t.Errorf("the last of the small campaign went as number %d", last)
		}
	})
}

// An outage of an hour, and the hop in front: no delivery goes round more often than is promised, and none is lost.
func TestOutageDoesNotGoRoundAndRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const deliveries = 2000
		var down atomic.Bool
		down.Store(true)
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if down.Load() {
				return status(503)
			}
			return status(200)
		})
		d := b.destination("w")
		out := b.push(d, deliveries)
		rounds, attempts := 0, 0
		type entry struct {
			j       *job
			due     time.Time
			attempt bool
		}
		var topic []entry // the retry topics
		hop := func() {
			now := time.Now()
			queued := out[:0]
			for _, j := range out {
				v, ended := b.verdict(j)
				switch {
				case !ended || v.Next == End:
					queued = append(queued, j)
					continue
				case v.Next == Later:
					attempts++
				default:
					rounds++
				}
				_, due := parkAt(v.After, math.MaxInt64, now)
				back := b.job(d, 24*time.Hour)
				back.delivery.Device, back.again = j.delivery.Device, j.again || v.Next == Later
				topic = append(topic, entry{back, due, v.Next == Later})
			}
			out = queued
			waiting := topic[:0]
			for _, e := range topic {
				if !e.attempt && d.wants(e.j.name, e.j.again, now) || !now.Before(e.due) {
					out = append(out, e.j)
					d.push([]*job{e.j}, time.Now())
					continue
				}
				waiting = append(waiting, e)
			}
			topic = waiting
		}
		for range 3600 {
			b.pass(time.Second)
			hop()
		}
		if stateOf(d) != stateWaiting {
			t.Fatalf("the destination is %v: the outage did not strike", stateOf(d))
		}
		if most := deliveries * parkRounds; rounds == 0 || rounds > most {
			t.Errorf("%d records on retry topics for %d deliveries, at most %d are promised", rounds, deliveries, most)
		}
		if most := startLimit + illAtOnce; attempts > most || attempts < illAtOnce/2 {
			t.Errorf("%d attempts were counted in an outage, at most the %d until it was found are promised", attempts, most)
		}
		down.Store(false)
		for range 120 {
			b.pass(time.Second)
			hop()
		}
		accepted := b.count(out)[End]
		if accepted != deliveries {
			t.Errorf("%d of %d are through two minutes after the outage", accepted, deliveries)
		}
	})
}
