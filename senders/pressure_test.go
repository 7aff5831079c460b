package senders

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestPressureFollowsTheWaitForACore(t *testing.T) {
	p := newPressure()
	for range 100 {
		p.learn(0, p.limit(0)/3)
	}
	if p.limit(0) != reopenLimit {
		t.Errorf("a limit that nobody needed became %d", p.limit(0))
	}
	for range 20 {
		p.learn(time.Millisecond, p.limit(0))
	}
	if near, far := p.limit(time.Millisecond), p.limit(100*time.Millisecond); near != leastSlots || far != 50 {
		t.Errorf("cores that stay busy: %d, and %d to a provider that takes 100 ms", near, far)
	}
	for range 100 {
		p.learn(10*time.Microsecond, p.limit(0))
	}
	if p.limit(0) < 2000 {
		t.Errorf("after ten seconds of free cores: %d", p.limit(0))
	}
	p.learn(time.Millisecond, 100)
	if p.limit(0) != 70 {
		t.Errorf("the cut starts at what is in flight, but gave %d", p.limit(0))
	}
	p.learn(0, 0)
	if p.limit(0) != reopenLimit {
		t.Errorf("after an idle moment: %d", p.limit(0))
	}
}

// The runtime's metric is there and means what pressure takes it for.
func TestPressureMeasuresQueuedGoroutines(t *testing.T) {
	p := newPressure()
	p.wait()
	var all sync.WaitGroup
	for range 200 * runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for range 10 {
				for began := time.Now(); time.Since(began) < 100*time.Microsecond; {
				}
				runtime.Gosched()
			}
		})
	}
	all.Wait()
	if wait := p.wait(); wait < time.Millisecond {
		t.Errorf("with 200 goroutines for each core, nine of ten waited for less than %v", wait)
	}
}

func TestNoPressureNoLimit(t *testing.T) {
	var p *pressure
	p.adjust(1000)
	if p.limit(0) < 1<<30 {
		t.Errorf("limit %d", p.limit(0))
	}
}

// What this machine adds to an answer's time is no reason to have more in flight: the nearest answer counts, and a provider that has
// become slower is farther away once its quick answers are some seconds old.
func TestTheNearestAnswerSaysHowFarAProviderIs(t *testing.T) {
	var d distance
	now := time.Unix(1000, 0)
	note := func(took time.Duration) { now = now.Add(100 * time.Millisecond); d.note(took, now) }
	for i := range 200 {
		took := 8 * time.Second
		if i%20 == 0 {
			took = 30 * time.Millisecond
		}
		if note(took); d.get() != 30*time.Millisecond {
			t.Fatalf("%v away after answer %d", d.get(), i)
		}
	}
	for range 2 * nearFor / (100 * time.Millisecond) {
		note(800 * time.Millisecond)
	}
	if d.get() != 800*time.Millisecond {
		t.Errorf("%v away when all answers took 800 ms", d.get())
	}
}
