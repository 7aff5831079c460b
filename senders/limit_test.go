package senders

import (
	"testing"
	"time"
)

func TestLimitGrowsWhenUsedAndShrinksOncePerBadMoment(t *testing.T) {
	l := newLimit(400)
	if l.slots() != startLimit {
		t.Fatalf("begins at %d", l.slots())
	}
	l.grow(10)
	if l.slots() != startLimit {
		t.Errorf("grew to %d though it was hardly used", l.slots())
	}
	for range startLimit {
		l.grow(l.slots())
	}
	if l.slots() != 2*startLimit {
		t.Errorf("one round trip took it to %d, not to twice", l.slots())
	}
	for range 1000 {
		l.grow(l.slots())
	}
	if l.slots() != 400 {
		t.Errorf("went to %d, past its ceiling", l.slots())
	}
	begun, now := time.Unix(100, 0), time.Unix(101, 0)
	for range 400 { // all that were in flight fail together
		l.shrink(begun, now)
	}
	if l.slots() != 280 {
		t.Errorf("one bad moment cut it to %d, not to 280", l.slots())
	}
	for range 280 {
		l.grow(l.slots())
	}
	if l.slots() != 281 && l.slots() != 280 {
		t.Errorf("after a cut, one round trip took it to %d, not one up", l.slots())
	}
	for i := range 100 {
		l.shrink(now.Add(time.Duration(i)*time.Second), now.Add(time.Duration(i)*time.Second))
	}
	if l.slots() != 1 {
		t.Errorf("cut to %d", l.slots())
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
			if due.Sub(time.Unix(0, 0)) < floor || tier.Delay < min(wait, time.Hour) {
				t.Fatalf("%v goes to tier %s", wait, tier.Name)
			}
		}
	}
}
