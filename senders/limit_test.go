package senders

import (
	"math/rand/v2"
	"testing"
	"time"
)

// overload answers n requests at a limit, of which so many are refused, and moves on by a second.
func overload(l *limit, n int, refused func(i int) bool, now *time.Time) {
	for i := range n {
		if refused(i) {
			l.refuses(*now, *now)
		} else {
			l.took(*now, l.slots(), *now)
		}
	}
	*now = now.Add(time.Second)
}

func TestLimitGrowsWhenUsed(t *testing.T) {
	l, now := newLimit(400), time.Unix(100, 0)
	if l.slots() != startLimit {
		t.Fatalf("begins at %d", l.slots())
	}
	l.took(now, 10, now)
	if l.slots() != startLimit {
		t.Errorf("grew to %d though it was hardly used", l.slots())
	}
	for range startLimit {
		l.took(now, l.slots(), now)
	}
	if l.slots() != 2*startLimit {
		t.Errorf("one round trip took it to %d, not to twice", l.slots())
	}
	for range 1000 {
		l.took(now, l.slots(), now)
	}
	if l.slots() != 400 {
		t.Errorf("went to %d, past its ceiling", l.slots())
	}
}

// A destination that takes so many at a time and refuses the rest is asked for about that many.
func TestLimitFindsWhatADestinationTakes(t *testing.T) {
	for _, takes := range []int{40, 100, 300} {
		l, now := newLimit(1000), time.Unix(100, 0)
		var sum, rounds int
		for round := range 400 {
			n := l.slots()
			overload(&l, n, func(i int) bool { return i >= takes }, &now)
			if round >= 200 {
				sum, rounds = sum+n, rounds+1
			}
		}
		if mean := sum / rounds; mean < takes*6/10 || mean > takes*13/10 {
			t.Errorf("asked for %d at a time on average of a destination that takes %d", mean, takes)
		}
	}
}

// One bad moment is one cut, however many requests met it.
func TestLimitCutsOncePerBadMoment(t *testing.T) {
	l, begun := newLimit(400), time.Unix(100, 0)
	l.value, l.doubling = 400, false
	now := begun.Add(time.Second)
	for i := range 800 {
		if i%2 == 0 {
			l.refuses(begun, now)
		} else {
			l.took(begun, 400, now)
		}
	}
	if l.slots() < 280 || l.slots() > 281 {
		t.Errorf("one bad moment cut it to %d, not to 280", l.slots())
	}
}

// Targets that are refused whatever is asked of the others starve nobody: the limit is tried, and given back.
func TestLimitIsNotCutForSingleTargets(t *testing.T) {
	for _, share := range []int{5, 30, 50, 90, 99} {
		l, now := newLimit(1000), time.Unix(100, 0)
		rng := rand.New(rand.NewPCG(1, uint64(share)))
		least, sum := l.slots(), 0
		const rounds = 2000
		for range rounds {
			overload(&l, 20, func(int) bool { return rng.IntN(100) < share }, &now)
			least = min(least, l.slots())
			sum += l.slots()
		}
		if mean := sum / rounds; mean < startLimit/2 || least < leastLimit {
			t.Errorf("with %d %% of targets that are refused it had %d slots on average, and %d at least", share, mean, least)
		}
	}
}

func TestBackoffNeverGoesBelowRetryAfter(t *testing.T) {
	const floor = 42 * time.Second
	for attempt := range uint32(64) {
		for range 100 {
			wait := backoff(attempt, floor)
			if wait < floor || wait > floor+backoffMost {
				t.Fatalf("attempt %d waits %v", attempt, wait)
			}
			tier, due := retryAt(wait, time.Unix(0, 0))
			if due.Sub(time.Unix(0, 0)) != wait || tier.Delay < min(wait, time.Hour) {
				t.Fatalf("%v goes to tier %s, until %v", wait, tier.Name, due)
			}
		}
	}
}
