package senders

import (
	"slices"
	"time"

	"github.com/belfry/belfry/schemas"
)

// Parking keeps a destination that does not move from filling the window that all share. One record left waiting would in
// time hold up everything behind it on its partition: so a record waits for a stuck destination for at most patience, and
// all of a destination's together take at most a share of the window. The rest goes to a retry topic and comes back.
//
// A destination that merely is the busiest is not stuck: its backlog belongs in the window, and backpressure holds the
// topic. It must make room when nothing moves, or when the provider, not this machine, sets a slow pace while others
// could go on and only lack records.
const (
	patience = 5 * time.Second
	// stalledFor is how long nothing moves before the destination counts as stuck. A short Retry-After is not worth copying
	// a window for.
	stalledFor = 2 * time.Second
	// slowAnswer is an answer's time that this machine alone does not make.
	slowAnswer = time.Second
	// shareOf is the part of a partition's window, one in so many, that a stuck destination may hold.
	shareOf = 4
	// The time in the retry topic grows with the time stuck, so that an outage does not go round and round, but not beyond
	// what people would wait for once it is over.
	parkShortest, parkLongest = 5 * time.Second, 2 * time.Minute
)

// share is a part of one partition's window.
type share struct {
	records int
	bytes   int64
}

// parked is how many deliveries were put off together, and when they come back.
type parked struct {
	due time.Time
	n   uint64
}

// account keeps shares. Called with mu held.
func (d *destination) account(j *job, n int) {
	s := d.shares[j.task.Partition]
	s.records += n
	s.bytes += int64(n * len(j.task.Value))
	if s.records == 0 {
		delete(d.shares, j.task.Partition)
		return
	}
	d.shares[j.task.Partition] = s
}

// idle says that the destination is at work and would take more than it gets.
func (d *destination) idle(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == stateOpen && len(d.queue) == 0 && now.Sub(d.well) < 10*time.Second
}

// tick lets a probe go that is due, and puts off what the destination may not hold. othersIdle says that other
// destinations of the lane want for work; budget is a destination's share of a partition's window.
func (d *destination) tick(now time.Time, othersIdle bool, budget share) {
	d.mu.Lock()
	d.start(now)
	moved, wait := d.overdue(now, othersIdle, budget)
	code := d.stuckReason()
	d.mu.Unlock()
	for _, j := range moved {
		v, ok := j.check(now)
		if ok {
			v = Verdict{Next: putOff, Code: code, After: wait}
		}
		d.finish(j, v)
	}
}

// overdue takes out of the queue what is to be put off, and says for how long. Called with mu held.
func (d *destination) overdue(now time.Time, othersIdle bool, budget share) ([]*job, time.Duration) {
	if !d.stuck(now, othersIdle) {
		return nil, 0
	}
	var moved []*job
	d.queue = slices.DeleteFunc(d.queue, func(j *job) bool {
		s := d.shares[j.task.Partition]
		over := s.records > budget.records || s.bytes > budget.bytes
		if !over && now.Sub(j.queued) < patience {
			return false
		}
		d.account(j, -1)
		moved = append(moved, j)
		return true
	})
	wait := parkShortest
	if d.state != stateOpen {
		wait = min(max(now.Sub(d.since), d.until.Sub(now), parkShortest), parkLongest)
	}
	d.notePark(uint64(len(moved)), now.Add(schemas.TierFor(wait).Delay))
	return moved, wait
}

// stuck says whether the destination must make room. Called with mu held.
func (d *destination) stuck(now time.Time, othersIdle bool) bool {
	if len(d.queue) == 0 {
		return false
	}
	if d.state != stateOpen {
		return now.Sub(d.since) > stalledFor
	}
	moved := d.well
	if moved.Before(d.busy) {
		moved = d.busy
	}
	stalled := d.inFlight > 0 && now.Sub(moved) > stalledFor
	behind := othersIdle && now.Sub(d.queue[0].queued) > patience
	ownPace := d.latency > slowAnswer || d.limit.slots() < reopenLimit
	// Once slow it stays so at that pace: else it would fill the window again after each clearing.
	d.slow = ownPace && (d.slow || stalled || behind)
	return d.slow || stalled
}

// stuckReason is the code of a delivery put off. Called with mu held.
func (d *destination) stuckReason() string {
	if d.state == stateOpen {
		return "slow"
	}
	return d.reason
}

// notePark and parkedCount keep count of what is in the retry topics on this destination's account. One entry stands for
// a second, so there are no more of them than seconds in the longest park. Called with mu held.
func (d *destination) notePark(n uint64, due time.Time) {
	if n == 0 {
		return
	}
	if last := len(d.parked) - 1; last >= 0 && due.Sub(d.parked[last].due).Abs() < time.Second {
		d.parked[last].n += n
		return
	}
	d.parked = append(d.parked, parked{due, n})
}

func (d *destination) parkedCount(now time.Time) (n uint64) {
	d.parked = slices.DeleteFunc(d.parked, func(p parked) bool { return !now.Before(p.due) })
	for _, p := range d.parked {
		n += p.n
	}
	return n
}

// release gives back the queued jobs whose assignment is over.
func (d *destination) release() {
	var gone []*job
	d.mu.Lock()
	d.queue = slices.DeleteFunc(d.queue, func(j *job) bool {
		if j.ctx.Err() == nil {
			return false
		}
		d.account(j, -1)
		gone = append(gone, j)
		return true
	})
	d.mu.Unlock()
	for _, j := range gone {
		d.finish(j, Verdict{Next: giveBack})
	}
}
