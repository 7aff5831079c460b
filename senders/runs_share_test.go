package senders

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
)

// roomy is a bench whose window has room for all.
func roomy(t *testing.T, answer func(context.Context, *Request) (*wire.Result, error)) *bench {
	b := newBench(t, answer)
	b.budget.window.records = 1 << 20
	return b
}

// number is a device's of a bench, and nth says whether it is one in so many.
func number(device string) (n int) {
	fmt.Sscanf(device, "d%d", &n)
	return n
}

func nth(n int, device string) bool { return number(device)%n == 0 }

// Each twentieth device of a campaign hangs, and another campaign is under way, at a rate that leaves places free: it is no slower for it.
func TestAFewThatHangDoNotHoldTheirCampaignAtARate(t *testing.T) {
	for _, rate := range []float64{16, 100} {
		through := map[bool]int{}
		for _, sick := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				b := roomy(t, func(ctx context.Context, q *Request) (*wire.Result, error) {
					if sick && q.Delivery.Run == "some-hang" && nth(20, q.Delivery.Device) {
						return hang(ctx)
					}
					time.Sleep(50 * time.Millisecond)
					return status(200)
				})
				b.provider.rate = rate
				d := b.destination("x")
				all := b.pushRun(d, "some-hang", 4000)
				for range 30 {
					b.pushRun(d, "well", int(rate))
					b.pass(time.Second)
				}
				through[sick] = b.count(all)[End]
			})
		}
		if through[true]*10 < through[false]*9 {
			t.Errorf("at %v a second %d went, and %d where each twentieth hangs", rate, through[false], through[true])
		}
	}
}

// Nineteen in twenty of a campaign's devices fail, beside another campaign: the others of its own are no slower for it than by a tenth.
func TestTheFewWhoAreWellAreNotTakenForFailing(t *testing.T) {
	for _, code := range []int{409, 503} {
		var alone time.Duration
		for _, one := range []int{1, 10, 20} { // in so many is well
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var sum time.Duration
				n, began := 0, time.Now()
				b := roomy(t, func(_ context.Context, q *Request) (*wire.Result, error) {
					time.Sleep(50 * time.Millisecond)
					if q.Delivery.Run != "few" {
						return status(200)
					}
					if !nth(one, q.Delivery.Device) {
						return status(code)
					}
					if nth(20, q.Delivery.Device) { // whom all three have in common
						mu.Lock()
						defer mu.Unlock()
						n++
						sum += time.Since(began)
					}
					return status(200)
				})
				b.provider.ceiling = 32
				d := b.destination("x")
				b.pushRun(d, "few", 2000)
				b.pushRun(d, "well", 20_000)
				b.pass(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if n != 100 {
					t.Fatalf("%d of 100 went", n)
				}
				mean := sum / 100
				if one == 1 {
					alone = mean
				}
				if mean*10 > alone*11 {
					t.Errorf("%d, one in %d is well: %v, and %v where all are", code, one, mean, alone)
				}
			})
		}
	}
}

// Nothing comes back of a campaign, and beside it waits one that its own pace holds: the destination is found ill in seconds.
func TestAStallIsFoundBesideAPacedCampaign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := roomy(t, func(ctx context.Context, _ *Request) (*wire.Result, error) { return hang(ctx) })
		d := b.destination("x")
		slow := &run{}
		slow.rate.Store(math.Float64bits(0.001))
		slow.flow.tokens, slow.flow.filled = -1, time.Now()
		for range 20 {
			j := b.job(d, time.Hour)
			j.name, j.delivery.Run, j.run = "paced", "paced", slow
			d.push([]*job{j}, time.Now())
		}
		b.pushRun(d, "hangs", 1000)
		b.pass(4 * time.Second)
		if got := stateOf(d); got != stateWaiting {
			t.Errorf("after four seconds it is %v", got)
		}
	})
}

// However its answers come, what a destination counts of its runs comes to nothing in the end.
func TestRunsAreCountedRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []int{200, 200, 409, 410, 421, 200, 429, 500, 503, 400}
		b := roomy(t, func(ctx context.Context, q *Request) (*wire.Result, error) {
			i := number(q.Delivery.Device)
			if i%len(answers) == 0 && i%3 == 0 {
				return hang(ctx)
			}
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			return status(answers[i%len(answers)])
		})
		d := b.destination("x")
		for n := range 200 {
			b.pushRun(d, fmt.Sprint("run", n%90), 10)
			b.pass(100 * time.Millisecond)
		}
		b.pass(2 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if n := b.requestsTo(d); n < 2000 {
			t.Fatalf("there were %d requests only", n)
		}
		if d.flight.n != 0 || len(d.queue.out) > keptLines+len(d.queue.runs)+1 {
			t.Errorf("%d are in flight, %d runs are known", d.flight.n, len(d.queue.out))
		}
		for run, o := range d.queue.out {
			if o.n != 0 {
				t.Errorf("line %v has %d in flight", run, o.n)
			}
		}
	})
}

// A campaign whose answers do not come leaves room for the next one, and takes no more of the places than that while both wait.
func TestOneThatHangsLeavesRoom(t *testing.T) {
	for _, gap := range []time.Duration{0, 0, 0, 0, 50 * time.Millisecond} { // some, for chance has a say in whose turn is first
		synctest.Test(t, func(t *testing.T) {
			var hung, answered, took atomic.Int64 // and how many places it had when half of the other was answered
			b := roomy(t, func(ctx context.Context, q *Request) (*wire.Result, error) {
				if q.Delivery.Run == "hangs" {
					hung.Add(1)
					return hang(ctx)
				}
				time.Sleep(10 * time.Millisecond)
				if answered.Add(1) == 250 {
					took.Store(hung.Load())
				}
				return status(200)
			})
			b.provider.ceiling = startLimit
			d := b.destination("x")
			b.restrain(control.Destination(fcm, "shop", "x"), &pb.Restraint{Paused: true})
			b.pushRun(d, "hangs", 1000)
			if gap > 0 { // it has begun by then
				b.restrain(control.Destination(fcm, "shop", "x"), nil)
				b.pass(gap)
			}
			well := b.pushRun(d, "well", 500)
			b.restrain(control.Destination(fcm, "shop", "x"), nil)
			b.pass(900 * time.Millisecond) // before any is late
			if n := b.count(well)[End]; n != 500 {
				t.Errorf("%v behind it %d of 500 went", gap, n)
			}
			if n := took.Load(); gap == 0 && (n == 0 || n > startLimit*5/8) {
				t.Errorf("it had %d of %d places", n, startLimit)
			}
		})
	}
}

// All that a destination has is refused for a while, and some of it, a whole campaign that was there first, for its own sake: when the
// others' fault ends, they have not to wait until each of that campaign has been asked once more.
func TestASickCampaignDoesNotHideThatTheOthersAreWell(t *testing.T) {
	for _, is := range []struct{ code, campaigns, within int }{ // 0: none is answered
		{429, 1, 10}, {409, 1, 10}, {503, 1, 10}, {503, 10, 60}, {0, 1, 15}} {
		t.Run(fmt.Sprint(is.code, is.campaigns), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out atomic.Bool
				out.Store(true)
				b := roomy(t, func(ctx context.Context, q *Request) (*wire.Result, error) {
					time.Sleep(20 * time.Millisecond)
					switch {
					case q.Delivery.Run != "well" && is.code == 0:
						return hang(ctx)
					case q.Delivery.Run != "well":
						return status(is.code)
					case out.Load():
						return status(503)
					}
					return status(200)
				})
				d := b.destination("x")
				h := &hop{bench: b, d: d}
				for i := range is.campaigns {
					h.out = append(h.out, b.pushRun(d, fmt.Sprint("sick", i), 3000/is.campaigns)...)
				}
				h.out = append(h.out, b.pushRun(d, "well", 300)...)
				for range 120 {
					h.pass()
				}
				out.Store(false)
				for range is.within {
					h.pass()
					if b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED] == 300 {
						return
					}
				}
				t.Errorf("%d of 300 went in %d s, and it is %v", b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED], is.within, stateOf(d))
			})
		})
	}
}
