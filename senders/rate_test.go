package senders

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const urgent = pb.Class_CLASS_URGENT

// near says whether a count of requests is what a rate comes to, but for what is saved up and lent at the start.
func near(got int, want, rate float64) bool {
	return math.Abs(float64(got)-want) <= 2+rate*2*saved.Seconds()
}

func (b *bench) requestsOf(c pb.Class) (n int) {
	for _, r := range b.provider.requests() {
		if r.Delivery.Class == c {
			n++
		}
	}
	return n
}

// A project's quota, an app's rate and a destination's hold for both classes together. When both have more than that, what
// is urgent goes; bulk has what is left.
func TestClassesShareARateUrgentFirst(t *testing.T) {
	const rate, seconds = 100, 20
	for name, set := range map[string]func(*bench){
		"quota":       func(b *bench) { b.provider.rate = rate },
		"app":         func(b *bench) { b.restrain(control.App("shop"), &pb.Restraint{PerSecond: rate}) },
		"destination": func(b *bench) { b.restrain(control.Destination(fcm, "shop", "w"), &pb.Restraint{PerSecond: rate}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, takes(5*time.Millisecond))
				set(b)
				b.budget.window = share{1 << 20, 1 << 40}
				first, second := b.behind(b.urgent, "w"), b.destination("w")
				b.push(second, 10_000)
				b.pass(seconds * time.Second)
				if got := b.requestsOf(bulk); !near(got, rate*seconds, rate) {
					t.Errorf("%d requests in %d s at %d/s without any urgent", got, seconds, rate)
				}
				// Half the rate: each goes at once, though bulk has taken all that there was.
				before := b.requestsOf(bulk)
				for i := range seconds * 5 {
					b.push(first, 10)
					synctest.Wait()
					if got := b.requestsOf(urgent); got != 10*(i+1) {
						t.Fatalf("%d of %d urgent went at once", got, 10*(i+1))
					}
					b.pass(200 * time.Millisecond)
				}
				if got := b.requestsOf(bulk) - before; !near(got, rate*seconds/2, rate) {
					t.Errorf("%d bulk requests in %d s beside urgent ones of half the rate", got, seconds)
				}
				// More than the rate.
				before, urgentBefore := b.requestsOf(bulk), b.requestsOf(urgent)
				b.push(first, 10_000)
				b.pass(seconds * time.Second)
				if got := b.requestsOf(urgent) - urgentBefore; !near(got, rate*seconds, rate) {
					t.Errorf("%d urgent requests in %d s", got, seconds)
				}
				if got := b.requestsOf(bulk) - before; float64(got) > rate*saved.Seconds() {
					t.Errorf("%d bulk requests while urgent ones wait", got)
				}
			})
		})
	}
}

// An app's rate holds for all of its destinations on a platform together.
func TestDestinationsShareTheirAppsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, seconds = 100, 20
		b := newBench(t, takes(5*time.Millisecond))
		b.restrain(control.App("shop"), &pb.Restraint{PerSecond: rate})
		b.budget.window = share{1 << 20, 1 << 40}
		one, other := b.destination("w"), b.destination("o")
		b.push(one, 10_000)
		b.push(other, 10_000)
		b.pass(seconds * time.Second)
		if got := b.requestsTo(one) + b.requestsTo(other); !near(got, rate*seconds, rate) {
			t.Errorf("%d requests in %d s at %d/s", got, seconds, rate)
		}
	})
}

// Whatever the partitions that instances have of either lane, their parts of a rate add up to it, and none that has work
// has nothing.
func TestInstancesPartsAddUp(t *testing.T) {
	for _, instances := range [][][2]float64{
		{{0.5, 0.25}, {0.5, 0.25}, {0, 0.5}},
		{{1, 0}, {0, 0.5}, {0, 0.5}}, // the classes apart
	} {
		var sum float64
		for _, parts := range instances {
			r := NewRates()
			r.own(urgent, parts[0])
			r.own(bulk, parts[1])
			part := r.share(1000)
			if part == 0 {
				t.Errorf("nothing for an instance with %v of the lanes", parts)
			}
			sum += part
		}
		if sum != 1000 {
			t.Errorf("instances with %v of the lanes send %v of 1000 together", instances, sum)
		}
	}
}
