package senders

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
)

// bench holds destinations in place of a lane, under a fake clock. Fields after mu are read between waits.
type bench struct {
	t        *testing.T
	provider *fakeProvider
	life     context.Context
	stop     context.CancelFunc
	common   common
	budget   budget
	all      []*destination
	// valve is the bulk lane's, and of most destinations; urgent is of the other lane.
	valve, urgent *valve
	// devices counts the jobs: each has its own.
	devices int
	// restraints are what operators hold back.
	restraints map[control.Name]*pb.Restraint

	mu    sync.Mutex
	ended map[*job]Verdict
}

func newBench(t *testing.T, answer func(ctx context.Context, r *Request) (*wire.Result, error)) *bench {
	b := &bench{
		t: t, provider: &fakeProvider{answer: answer, ceiling: 1000},
		budget: budget{share{records: 100, bytes: 1 << 20}, schemas.ParkBudget, laneBudget}, ended: map[*job]Verdict{}, restraints: map[control.Name]*pb.Restraint{},
	}
	rates := NewRates()
	b.valve, b.urgent = newValve(fcm, bulk, b.restraint, rates), newValve(fcm, pb.Class_CLASS_URGENT, b.restraint, rates)
	b.own(1, 1)
	b.life, b.stop = context.WithCancel(t.Context())
	b.provider.ctx = b.life
	b.common = common{provider: b.provider, timeout: 10 * time.Second, life: b.life, log: slog.New(slog.DiscardHandler), finish: b.finish}
	t.Cleanup(func() { b.stop(); b.common.pumps.Wait(); b.provider.out.Wait() })
	return b
}

// own gives this instance so many of each lane's partitions.
func (b *bench) own(partitions, all int) {
	b.valve.own(partitions, all)
	b.urgent.own(partitions, all)
}

func (b *bench) destination(name string) *destination { return b.behind(b.valve, name) }

// behind is a destination in the lane of a valve.
func (b *bench) behind(v *valve, name string) *destination {
	where := Destination{App: "shop", Name: name}
	d := newDestination(where, v.gates(where, b.provider.rate), &b.common)
	b.all = append(b.all, d)
	return d
}

func (b *bench) restraint(n control.Name) *pb.Restraint {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.restraints[n]
}

func (b *bench) finish(ends []ended, _ time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range ends {
		if _, twice := b.ended[e.job]; twice {
			b.t.Error("a job was finished twice")
		}
		b.ended[e.job] = e.verdict
	}
}

// push gives a destination n jobs of partition 0 that expire in a day.
func (b *bench) push(d *destination, n int) []*job { return b.pushRun(d, "spring", n) }

// pushRun is push for a run.
func (b *bench) pushRun(d *destination, run string, n int) []*job {
	jobs := b.ofRun(d, run, nil, n)
	d.push(jobs, time.Now())
	return jobs
}

func (b *bench) job(d *destination, ttl time.Duration) *job {
	at := time.Now().Add(ttl).UnixMilli()
	b.devices++
	return &job{
		name: "spring", expires: at, ctx: b.t.Context(), task: &stream.Task{Value: []byte("record")},
		delivery: &pb.Delivery{
			App: d.App, Run: "spring", Device: fmt.Sprint("d", b.devices), Class: d.class, ExpiresAt: at,
			Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: d.Name}}},
		},
	}
}

// pass lets time go by with the lane's ticks.
func (b *bench) pass(span time.Duration) {
	for end := time.Now().Add(span); time.Now().Before(end); {
		time.Sleep(tickEvery)
		synctest.Wait()
		for _, lane := range []*valve{b.urgent, b.valve} {
			var all []*destination
			for _, d := range b.all {
				if d.valve == lane {
					all = append(all, d)
				}
			}
			tend(all, time.Now(), b.budget)
		}
		synctest.Wait()
	}
}

// count tells how many of the jobs ended with each word.
func (b *bench) count(jobs []*job) map[Next]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[Next]int{}
	for _, j := range jobs {
		if v, ok := b.ended[j]; ok {
			n[v.Next]++
		}
	}
	return n
}

func (b *bench) verdict(j *job) (Verdict, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.ended[j]
	return v, ok
}

// stateOf and requestsTo look in from outside.
func stateOf(d *destination) pb.DestinationState { return d.status(time.Now()).State }

func (b *bench) requestsTo(d *destination) (n int) {
	for _, r := range b.provider.requests() {
		if r.Destination == d.Destination {
			n++
		}
	}
	return n
}

// hang is a provider that never answers.
func hang(ctx context.Context) (*wire.Result, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestStuckDestinationHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, r *Request) (*wire.Result, error) {
			if r.Destination.Name == "s" {
				return hang(ctx)
			}
			return status(200)
		})
		stuck, well := b.destination("s"), b.destination("w")
		held := b.push(stuck, 1000)
		b.pass(time.Second)
		going := b.push(well, 1000)
		b.pass(tickEvery)
		if got := b.count(going)[End]; got != 1000 {
			t.Fatalf("the well destination ended %d of 1000 while another hangs", got)
		}
		if got := len(b.count(held)); got != 0 {
			t.Fatalf("%d deliveries left a destination that has hung for a second only", got)
		}
		b.pass(3 * time.Second)
		if queued := stuck.shares[0].records; queued > b.budget.window.records {
			t.Errorf("after 3 s without an answer it holds %d records of a partition's window, of at most %d", queued, b.budget.window.records)
		}
		b.pass(20 * time.Second)
		if got := b.count(held); got[putOff]+got[Later] != 1000 || got[Later] < startLimit || got[Later] > startLimit+250 {
			t.Errorf("got %v; the %d in flight and those tried since must end at their deadline as attempts, the others be put off without one", got, startLimit)
		}
		if got := stateOf(stuck); got != stateWaiting {
			t.Errorf("state is %v after so many timeouts", got)
		}
	})
}

func TestStalledDestinationGoesOnByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := true
		b := newBench(t, func(ctx context.Context, r *Request) (*wire.Result, error) {
			if stalled {
				return hang(ctx)
			}
			return status(200)
		})
		d := b.destination("s")
		b.push(d, 20)
		b.pass(11 * time.Second)
		if stateOf(d) != stateWaiting {
			t.Fatalf("state is %v, the fault did not strike", stateOf(d))
		}
		stalled = false
		jobs := b.push(d, 500)
		b.pass(15 * time.Second)
		if stateOf(d) != stateOpen {
			t.Errorf("state is %v after the stall", stateOf(d))
		}
		if got := b.count(jobs); got[End]+got[putOff] != 500 || got[End] == 0 {
			t.Errorf("after the stall: %v of 500", got)
		}
	})
}

// One that is told to wait waits; the others are not delayed by it.
func TestRetryAfterBindsWhomItWasSaidTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			if r.Delivery.Device == "d1" {
				return retryAfter(429, 3600)
			}
			return status(200)
		})
		d := b.destination("f")
		first := b.push(d, 1)[0]
		b.pass(tickEvery)
		if v, _ := b.verdict(first); v.Next != Later || v.After != time.Hour {
			t.Errorf("the refused delivery got %+v", v)
		}
		others := b.push(d, 50)
		b.pass(tickEvery)
		if got := b.count(others)[End]; got != 50 {
			t.Errorf("%d of 50 others went", got)
		}
	})
}

// Where different ones are told to wait and none passes, few are asked, whatever they are told: 128 for each doubling of the
// time, and one in five seconds. The first that passes opens the destination.
func TestIllDestinationIsProbedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill := true
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if ill {
				return retryAfter(429, 3600)
			}
			return status(200)
		})
		d := b.destination("f")
		b.push(d, 2000)
		synctest.Wait()
		found := b.requestsTo(d)
		if stateOf(d) != stateWaiting || found > startLimit+illAtOnce {
			t.Fatalf("state %v after %d requests", stateOf(d), found)
		}
		last := 0
		for _, step := range []struct{ at, most int }{{1, 310}, {60, 1040}, {600, 1600}} {
			for ; last < step.at; last++ {
				b.push(d, 20)
				b.pass(time.Second)
			}
			if got := b.requestsTo(d) - found; got > step.most || got < step.most*9/10 {
				t.Errorf("%d requests in %d s, %d are promised", got, step.at, step.most)
			}
		}
		ill = false
		var late []*job
		for range 8 {
			late = append(late, b.push(d, 20)...)
			b.pass(time.Second)
		}
		if stateOf(d) != stateOpen || b.count(late)[End] == 0 {
			t.Errorf("8 s after its end it is %v, and %d went", stateOf(d), b.count(late)[End])
		}
	})
}

// A service that is ill by its own word, which no target can be the cause of, is asked one at a time.
func TestWhatCanOnlyBeTheServiceHoldsItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) { return retryAfter(504, 30) })
		b.provider.ceiling = 1
		d := b.destination("f")
		b.budget.window.records = 1000
		b.push(d, 50)
		synctest.Wait()
		if got := b.requestsTo(d); got != 1 || stateOf(d) != stateWaiting {
			t.Fatalf("%d requests at the start, state %v", got, stateOf(d))
		}
		for range 5 {
			b.push(d, 10)
			b.pass(5500 * time.Millisecond)
		}
		if got := b.requestsTo(d); got != 1 {
			t.Errorf("%d requests within Retry-After", got)
		}
		b.push(d, 10)
		b.pass(3 * time.Second)
		if got := b.requestsTo(d); got != 2 {
			t.Errorf("%d requests after Retry-After, not one probe", got)
		}
	})
}

func TestRefusedCredentialStopsItsDestinationAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			if r.Destination.Name == "b" && bad {
				return status(403)
			}
			return status(200)
		})
		stopped, other := b.destination("b"), b.destination("o")
		jobs := b.push(stopped, 50)
		others := b.push(other, 50)
		b.pass(time.Second)
		if stateOf(stopped) != stateStopped || stateOf(other) != stateOpen {
			t.Fatalf("states %v and %v", stateOf(stopped), stateOf(other))
		}
		if s := stopped.status(time.Now()); s.Reason != "403" || s.Parked != 50 || s.Until == 0 {
			t.Errorf("status %v", s)
		}
		if got := b.count(others)[End]; got != 50 {
			t.Errorf("the other destination ended %d of 50", got)
		}
		b.pass(time.Minute)
		if got := b.count(jobs); got[putOff] != 50 {
			t.Errorf("deliveries of the stopped destination: %v; all must be put off, none counted or lost", got)
		}
		if got := b.requestsTo(stopped); got > 50+5 {
			t.Errorf("%d requests to a destination that is stopped", got)
		}
		bad = false
		again := b.push(stopped, 50)
		b.pass(time.Minute + time.Second)
		more := b.push(stopped, 50)
		b.pass(time.Second)
		if stateOf(stopped) != stateOpen || b.count(again)[End] == 0 || b.count(more)[End] != 50 {
			t.Errorf("mended: state %v, %v, %v", stateOf(stopped), b.count(again), b.count(more))
		}
	})
}

func TestRefreshOnceThenStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusals := 1
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if refusals > 0 {
				refusals--
				return status(401)
			}
			return status(200)
		})
		d := b.destination("x")
		j := b.push(d, 1)[0]
		b.pass(time.Second)
		if v, _ := b.verdict(j); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED || b.provider.refreshed != 1 {
			t.Errorf("an expired token: %+v after %d refreshes", v, b.provider.refreshed)
		}
		refusals = 2
		b.push(d, 1)
		b.pass(time.Second)
		if stateOf(d) != stateStopped || b.provider.refreshed != 2 {
			t.Errorf("refused with a fresh token: state %v after %d refreshes", stateOf(d), b.provider.refreshed)
		}
	})
}

// A destination whose token's credential is refused is stopped, and shown so, until there is a token again.
func TestARefusedTokenStopsItsDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if !mended.Load() {
				return nil, ErrTokenRefused
			}
			return status(200)
		})
		d := b.destination("x")
		jobs := b.push(d, 90)
		b.pass(time.Second)
		if s := d.status(time.Now()); s.State != stateStopped || s.Reason != codeTokenRefused {
			t.Errorf("it is shown as %v, %s", s.State, s.Reason)
		}
		mended.Store(true)
		b.pass(2 * time.Second)
		if got := b.count(jobs); got[End] != 90 || len(got) != 1 || stateOf(d) != stateOpen {
			t.Errorf("got %v in state %v, want all 90 sent once it is mended", got, stateOf(d))
		}
	})
}

func TestNoTokenWaitsWithoutAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := time.Now().Add(3 * time.Second)
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if time.Now().Before(ready) {
				return nil, ErrNoToken
			}
			return status(200)
		})
		d := b.destination("x")
		jobs := b.push(d, 90)
		b.pass(4500 * time.Millisecond)
		if got := b.count(jobs); got[End] != 90 || len(got) != 1 {
			t.Errorf("got %v, want all 90 sent once there is a token", got)
		}
		for _, j := range jobs {
			if j.attempts() != 1 {
				t.Fatalf("a delivery counts %d attempts", j.attempts())
			}
		}
	})
}

func TestAgainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) { return status(421) })
		d := b.destination("x")
		j := b.push(d, 1)[0]
		b.pass(time.Second)
		if v, _ := b.verdict(j); v.Next != Later || len(b.provider.requests()) != againAtMost {
			t.Errorf("%+v after %d requests", v, len(b.provider.requests()))
		}
	})
}

func TestExpiredInQueueIsNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, _ *Request) (*wire.Result, error) {
			time.Sleep(3 * time.Second)
			return status(200)
		})
		b.provider.ceiling = 1
		d := b.destination("x")
		first, second := b.job(d, time.Hour), b.job(d, 2*time.Second)
		d.push([]*job{first}, time.Now())
		d.push([]*job{second}, time.Now())
		b.pass(8 * time.Second)
		if v, _ := b.verdict(second); v != expired {
			t.Errorf("the second got %+v", v)
		}
		if n := len(b.provider.requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestDeadlineEndsAtExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, _ *Request) (*wire.Result, error) { return hang(ctx) })
		d := b.destination("x")
		j := b.job(d, 2*time.Second)
		start := time.Now()
		d.push([]*job{j}, time.Now())
		b.common.pumps.Wait()
		b.provider.out.Wait()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the request had %v of a delivery with 2 s left", took)
		}
	})
}

func TestReleaseGivesBackWhatWasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, _ *Request) (*wire.Result, error) {
			time.Sleep(time.Second)
			return status(200)
		})
		b.provider.ceiling = 2
		d := b.destination("x")
		ctx, revoke := context.WithCancel(t.Context())
		var leaving []*job
		for range 10 {
			j := b.job(d, time.Hour)
			j.ctx = ctx
			d.push([]*job{j}, time.Now())
			leaving = append(leaving, j)
		}
		staying := b.push(d, 3)
		synctest.Wait()
		revoke()
		d.release()
		if got := b.count(leaving); got[giveBack] != 8 {
			t.Errorf("at the revocation: %v, want the 8 not begun given back", got)
		}
		late := b.job(d, time.Hour)
		late.ctx = ctx
		d.push([]*job{late}, time.Now())
		if v, _ := b.verdict(late); v.Next != giveBack {
			t.Errorf("a job pushed after its assignment's end got %+v", v)
		}
		b.pass(4 * time.Second)
		if got := b.count(leaving); got[End] != 2 {
			t.Errorf("in flight at the revocation: %v, want 2 answered", got)
		}
		if got := b.count(staying); got[End] != 3 {
			t.Errorf("of another partition: %v, want 3 answered", got)
		}
	})
}

func TestSlowDestinationMakesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, r *Request) (*wire.Result, error) {
			if r.Destination.Name == "s" {
				time.Sleep(8 * time.Second)
			}
			return status(200)
		})
		slow, quick := b.destination("s"), b.destination("q")
		for range 40 { // the other one gets a trickle, and would take more
			b.push(slow, 500)
			b.push(quick, 5)
			b.pass(time.Second)
		}
		if got := slow.shares[0].records; got > b.budget.window.records {
			t.Errorf("holds %d records while others want for work, of at most %d", got, b.budget.window.records)
		}
		b.push(slow, 2000)
		b.pass(tickEvery)
		if got := slow.shares[0].records; got > b.budget.window.records {
			t.Errorf("filled the window again with %d records", got)
		}
	})
}

func TestBusyDestinationIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			time.Sleep(100 * time.Millisecond)
			return status(200)
		})
		b.provider.ceiling = 20
		busy, quick := b.destination("b"), b.destination("q")
		jobs := b.push(busy, 4000)
		for range 25 {
			b.push(quick, 1)
			b.pass(time.Second)
		}
		if got := b.count(jobs); got[End] != 4000 {
			t.Errorf("got %v; a backlog alone must not be put off", got)
		}
	})
}

func TestUnsendableConcernsNoDestination(t *testing.T) {
	if v := refusal(&Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "payload-too-large"}, OfMessage); v.Code != "payload-too-large" || v.Next != End {
		t.Errorf("refusal: %+v", v)
	}
	if v := refusal(errors.New("odd"), OfMessage); v.Outcome != pb.Outcome_OUTCOME_REJECTED || v.Code == "" {
		t.Errorf("any other error: %+v", v)
	}
}

// A destination of which a part fails stays open, and says which part and why, until a minute after the last answer.
func TestAPartThatFailsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) {
			if asked.Add(1)%4 == 0 {
				return status(503)
			}
			return status(200)
		})
		d := b.destination("x")
		b.push(d, failingLeast-1)
		b.pass(time.Second)
		if s := d.status(time.Now()); s.Failing != 0 || s.FailingCode != "" {
			t.Errorf("after %d answers it says %v, %q", asked.Load(), s.Failing, s.FailingCode)
		}
		for range 5 { // over more than a half minute
			b.push(d, 40)
			b.pass(10 * time.Second)
		}
		if s := d.status(time.Now()); s.State != stateOpen || s.Failing < 0.24 || s.Failing > 0.26 || s.FailingCode != "503" {
			t.Errorf("%v, %v fails: %q", s.State, s.Failing, s.FailingCode)
		}
		b.pass(time.Minute)
		if s := d.status(time.Now()); s.Failing != 0 {
			t.Errorf("a minute after the last answer %v fails", s.Failing)
		}
	})
}
