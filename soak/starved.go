package main

import (
	"context"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// starved measures what the machine withholds from this process. A probe of its own wants a little of a processor, 2 ms
// in each 50, and what it does not get at once it waits for: a role, which wants more, waits at least as long. Limits in
// time are widened by it, by what was measured over just that time.
type starved struct {
	mu    sync.Mutex // guards all below
	waits []wait     // in order
	total time.Duration
	most  time.Duration // at once
}

type wait struct {
	end  time.Time
	long time.Duration
}

const (
	probeEvery = 50 * time.Millisecond
	probeSpin  = 2 * time.Millisecond
)

// run measures until ctx ends.
func (s *starved) run(ctx context.Context) {
	runtime.LockOSThread() // its CPU time is measured
	defer runtime.UnlockOSThread()
	for {
		due := time.Now().Add(probeEvery)
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeEvery):
		}
		spent := spin(probeSpin)
		now := time.Now()
		s.note(now, now.Sub(due)-spent)
	}
}

// spin takes so much of a processor, or rather more, and says how much.
func spin(d time.Duration) time.Duration {
	for start := cpu(); ; {
		if spent := cpu() - start; spent >= d {
			return spent
		}
	}
}

// cpu is this thread's time on a processor.
func cpu() time.Duration {
	const thread = 1 // RUSAGE_THREAD, getrusage(2)
	var u syscall.Rusage
	_ = syscall.Getrusage(thread, &u) // fails only for a wrong argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// note enters one wait. What a timer is late by on an idle machine is none.
func (s *starved) note(end time.Time, long time.Duration) {
	if long < time.Millisecond {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, wait{end, long})
	s.total += long
	s.most = max(s.most, long)
}

// during is how much was waited from one moment to another.
func (s *starved) during(from, to time.Time) (sum time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.waits) - 1; i >= 0; i-- {
		w := s.waits[i]
		if !w.end.After(from) {
			break
		}
		start := w.end.Add(-w.long)
		if start.Before(from) {
			start = from
		}
		end := w.end
		if end.After(to) {
			end = to
		}
		if end.After(start) {
			sum += end.Sub(start)
		}
	}
	return sum
}
