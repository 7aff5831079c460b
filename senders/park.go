package senders

import (
	"math"
	"time"
)

// Parking keeps destinations that do not move from filling the window that all share. One record left waiting would in
// time hold up everything behind it on its partition: so a record waits for a stuck destination for at most patience, and
// those of all that are stuck together take at most a share of the window. The rest goes to a retry topic and comes back:
// at the latest when its time there is over, and as soon as the destination goes on (retry.go).
//
// A destination that merely is the busiest is not stuck: its backlog belongs in the window, and backpressure holds the
// topic. It must make room when nothing moves, or when the provider, an operator or a rate, not this machine, sets a slow
// pace while others could go on and only lack records. The same holds for one campaign whose pace is slow.
//
// An outage does not go round and round, because the time in the retry topics grows with it: a record takes at most
// parkRounds of them in the first hour, and six in each that follows. And it does not take in the backlog, because the
// expanders hold an app's chunks back once many of its deliveries are parked at one destination (fanout/lanes.go). What
// comes all the same when a budget is full takes one round an hour (budget.go).
const (
	patience = 5 * time.Second
	// stalledFor is how long nothing moves before the destination counts as stuck. A short Retry-After is not worth copying
	// a window for.
	stalledFor = 2 * time.Second
	// slowAnswer is an answer's time that this machine alone does not make.
	slowAnswer = time.Second
	// parkShortest and parkLongest bound the time in a retry topic.
	parkShortest, parkLongest = 5 * time.Second, 10 * time.Minute
	parkRounds                = 12
)

// Why a delivery was put off, beside the destination's own reason.
const (
	codePaused = "paused" // its campaign is
	codeHeld   = "held"   // an operator paused its app or destination
	codePace   = "pace"   // its campaign's rate
	codeRate   = "rate"   // its app's or destination's
	codeSlow   = "slow"
)

// share is a part of one partition's window.
type share struct {
	records int
	bytes   int64
}

// account keeps shares. Called with mu held.
func (d *destination) account(j *job, n int) {
	at := int(j.task.Partition)
	if at >= len(d.shares) {
		d.shares = append(d.shares, make([]share, at+1-len(d.shares))...)
	}
	d.shares[at].records += n
	d.shares[at].bytes += int64(n * len(j.task.Value))
}

// wants says that a parked delivery of a run should come back before its time: the destination has room, or lacks one to probe
// with; with those of all runs in turns. again tells that it was asked before. All that it is asked about in one look have the same now;
// no more of them are wanted than it can begin within a second, or those beyond would only be put off once more.
func (d *destination) wants(run string, again bool, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, held := d.held(); held != nil || d.laneHeld() {
		return false
	}
	d.reckon(now)
	switch {
	case !d.turns.may(run):
		return false
	case d.breaker.state == stateOpen || !again && d.wanted > 0:
		if d.wanted--; d.wanted < 0 {
			return false
		}
	case !d.lacksProbe(run, now):
		return false
	}
	d.turns.took(run)
	return true
}

// lacksProbe says that a destination that is shut, and is probed again before long, has none to do it with that was asked before, or none
// of this run for its next round. Called with mu held.
func (d *destination) lacksProbe(run string, now time.Time) bool {
	b := &d.breaker
	switch {
	case b.state == stateBlocked || b.until.Sub(now) >= patience:
		return false
	case b.inferred && b.tried.name(run) == run:
		return !d.queue.any(func(other string, again bool) bool { return again && other == run })
	}
	return d.queue.again == 0
}

// reckon begins a new look over what is parked, if this is one, and reckons how many are wanted in it. Called with mu held.
func (d *destination) reckon(now time.Time) {
	if !now.Equal(d.looked) {
		d.looked, d.wanted = now, d.appetite(now)
		d.turns.look(d.wanted)
		d.calls.look(d.recall)
	}
}

const (
	// recallEach is how many of those that failed come back for each of them that passes: where most are well again, all are found within
	// seconds, and where most are not, few are asked in vain. recallMost bounds what is saved up.
	recallEach = 2
	recallMost = 1024
)

// recalls says that one of a run that failed at that time should come back before its own: the destination takes what it did not. A fault that
// was some targets' only leaves the destination open, and when it is over nothing tells but one of those that it struck. So each that
// passes brings back some that failed before it was asked; and where there are enough of them for it not to be their own, one is asked
// now and then, also while it is shut. Runs take turns in it, so that one who fails for its own sake is not asked in the others' stead.
// failed is how many they are.
func (d *destination) recalls(run string, at time.Time, failed int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, held := d.held(); held != nil || d.laneHeld() {
		return false
	}
	d.reckon(now)
	switch {
	case !d.calls.may(run):
		return false
	case d.breaker.state != stateOpen:
		if !d.lacksProbe(run, now) {
			return false
		}
	case d.wanted <= 0:
		return false
	case d.recall > 0 && at.Before(d.mended):
		d.recall--
	case failed >= illFailures && now.Sub(d.called) >= patience:
		d.called = now
	default:
		return false
	}
	d.wanted--
	d.calls.took(run)
	return true
}

// mends notes that one passed, asked at begun, that was asked before and was not taken. Called with mu held.
func (d *destination) mends(begun time.Time) {
	d.known.mended.note(begun)
	d.recall = min(d.recall+recallEach, recallMost)
	if begun.After(d.mended) {
		d.mended = begun
	}
}

// appetite is how many more it would take within a second: of any, or as long as it is ill of those that have not been asked
// before. Called with mu held.
func (d *destination) appetite(now time.Time) int {
	if d.breaker.state == stateOpen {
		return d.takes(now) - d.queue.len()
	}
	return d.breaker.wanted(now.Add(time.Second)) - d.queue.fresh()
}

// takes is how many requests may begin within a second, roughly. Called with mu held.
func (d *destination) takes(now time.Time) int {
	n := float64(d.usable()-d.flight.n) + d.drain(now)
	if rate := d.slowest(); rate >= 0 {
		n = min(n, rate)
	}
	return int(math.Ceil(n))
}

// drain is how many requests it can end a second, by how long an answer takes, or is out already. Called with mu held.
func (d *destination) drain(now time.Time) float64 {
	latency := max(d.latency, time.Millisecond)
	if d.flight.n > 0 {
		latency = max(latency, now.Sub(d.moved()))
	}
	return float64(d.usable()) / latency.Seconds()
}

// moved is when it showed last that it is at work, or began to be asked. Called with mu held.
func (d *destination) moved() time.Time {
	if d.well.Before(d.busy) {
		return d.busy
	}
	return d.well
}

// tick lets a probe go that is due, and puts off what the destination may not hold. othersIdle says that other
// destinations of the lane want for work; b is what this one may take up. It returns by how many more are parked.
func (d *destination) tick(now time.Time, othersIdle bool, b budget) int {
	d.mu.Lock()
	d.stalls(now)
	d.flight.look(d.breaker.state != stateOpen, now)
	d.known.tend(now.Sub(d.starved) < starvedFor, now)
	d.heed(now)
	d.tell(now)
	d.start(now)
	before := d.inBudget(now)
	moved := d.overdue(now, othersIdle, b)
	parked := d.inBudget(now) - before
	over := d.over(now)
	for i := range d.cleared {
		if v, ok := d.cleared[i].check(now); !ok {
			d.cleared[i].verdict = v
		}
	}
	moved = append(append(moved, d.unresolved(now)...), d.cleared...)
	clear(d.cleared)
	d.cleared = d.cleared[:0]
	d.mu.Unlock()
	for _, j := range over {
		v, _ := j.check(now)
		moved = append(moved, ended{j, v})
	}
	d.finish(moved, now)
	return parked
}

// inBudget is how many are parked on its account within the budget. Called with mu held.
func (d *destination) inBudget(now time.Time) int { return d.parked.count(now) + d.asked.count(now) }

// unresolved takes out of suspense what nothing has told for too long. Called with mu held.
func (d *destination) unresolved(now time.Time) []ended {
	out := d.suspense.overdue(now)
	for i := range out {
		d.account(out[i].job, -1)
		if v, ok := out[i].check(now); ok {
			out[i].verdict = d.takesNothing(out[i].job, out[i].verdict, now)
		} else {
			out[i].verdict = v
		}
	}
	return out
}

// over takes out what needs no request any more, once a second while the lane is paused: cancelled, or expired. Otherwise
// everything comes to its turn within patience. Called with mu held.
func (d *destination) over(now time.Time) []*job {
	if !d.laneHeld() || now.Sub(d.swept) < time.Second {
		return nil
	}
	d.swept = now
	return d.takeOut(func(j *job) bool {
		v, ok := j.check(now)
		return !ok && v.Next == End
	})
}

func (d *destination) takeOut(match func(*job) bool) []*job {
	return d.queue.remove(func(j *job) bool {
		if !match(j) {
			return false
		}
		d.account(j, -1)
		return true
	})
}

// overdue takes out of the queue what is to be put off. Called with mu held.
func (d *destination) overdue(now time.Time, othersIdle bool, b budget) []ended {
	stuck := d.stuck(now, othersIdle)
	d.crowding = stuck || now.Sub(d.paced) <= starvedFor
	d.space = min(b.parked-d.inBudget(now), b.lane)
	if !d.crowding {
		return nil
	}
	moved := d.takeOut(func(j *job) bool {
		paced := !stuck && j.run != nil && j.run.flow.starved(now)
		if !stuck && !paced {
			return false
		}
		s := d.shares[j.task.Partition]
		full := s.records > b.window.records || s.bytes > b.window.bytes
		return full || now.Sub(j.queued) >= patience && (stuck || othersIdle)
	})
	before, room, parked := d.inBudget(now), d.space, 0
	out := make([]ended, len(moved))
	for i, j := range moved {
		if v, ok := j.check(now); !ok { // it waits for nothing here any more
			out[i] = ended{j, v}
			continue
		}
		if j.early { // it has a time of its own
			out[i] = ended{j, Verdict{Next: Later, Of: OfService, Code: d.breaker.reason}}
			continue
		}
		v := d.away(j, before+parked, stuck, now)
		to := &d.parked
		switch {
		case parked >= room:
			v.After, to = surplusFor, &d.surplus
		case j.again:
			to = &d.asked
		}
		out[i] = ended{j, d.park(j, v, to, now)}
		parked++
	}
	d.space -= min(parked, max(0, room))
	return out
}

// park books a job that is put off. Called with mu held.
func (d *destination) park(j *job, v Verdict, to *tally, now time.Time) Verdict {
	_, due := parkAt(v.After, j.expires, now)
	to.add(due)
	return v
}

// away is the word for a job that is put off as the n-th: for how long, and why. Called with mu held.
func (d *destination) away(j *job, n int, stuck bool, now time.Time) Verdict {
	v := Verdict{Next: putOff, Code: d.breaker.reason}
	_, held := d.held()
	switch rate := d.slowest(); {
	case !stuck:
		v.Code = codePace
		v.After = turnAt(n, j.pace(d.valve))
	case held != nil:
		v.Code = codeHeld
		v.After = now.Sub(time.UnixMilli(held.At))
	case d.breaker.state != stateOpen:
		v.After = max(now.Sub(d.breaker.since), d.breaker.until.Sub(now))
	case now.Sub(d.starved) < starvedFor:
		v.Code = codeRate
		v.After = turnAt(n, rate)
	default:
		v.Code = codeSlow
		v.After = turnAt(n, d.drain(now))
	}
	v.After = min(max(v.After, parkShortest), parkLongest)
	return v
}

// turnAt is when the n-th of those who wait has its turn at so many a second.
func turnAt(n int, rate float64) time.Duration {
	switch {
	case rate < 0: // lifted just now
		return 0
	case rate == 0: // no partition is left here
		return parkLongest
	}
	return time.Duration(min(float64(n)/rate, parkLongest.Seconds()) * float64(time.Second))
}

// stuck says whether the destination must make room. Called with mu held.
func (d *destination) stuck(now time.Time, othersIdle bool) bool {
	first := d.queue.oldest()
	if first == nil || d.laneHeld() {
		return false
	}
	if _, held := d.held(); held != nil {
		return true
	}
	if d.breaker.state != stateOpen {
		return d.slow || now.Sub(d.breaker.since) > stalledFor
	}
	stalled := d.flight.n > 0 && now.Sub(d.moved()) > stalledFor
	behind := othersIdle && now.Sub(first.queued) > patience
	ownPace := d.latency > slowAnswer || d.limit.slots() < reopenLimit || now.Sub(d.starved) < starvedFor
	// Once slow it stays so at that pace: else it would fill the window again after each clearing.
	d.slow = ownPace && (d.slow || stalled || behind)
	return d.slow || stalled
}

// unpark notes that a delivery is back before its time. One of the surplus can be taken for one that falls due in the same
// second: both are back soon then.
func (d *destination) unpark(due time.Time, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := &d.parked
	if again {
		to = &d.asked
	}
	if !to.remove(due) {
		d.surplus.remove(due)
	}
}

// release gives back the queued jobs whose assignment is over.
func (d *destination) release() {
	d.mu.Lock()
	gone := d.takeOut(func(j *job) bool { return j.ctx.Err() != nil })
	for _, e := range d.suspense.take(func(s *suspect) bool { return s.ctx.Err() != nil }) {
		d.account(e.job, -1)
		gone = append(gone, e.job)
	}
	d.mu.Unlock()
	ends := make([]ended, len(gone))
	for i, j := range gone {
		ends[i] = ended{j, Verdict{Next: giveBack}}
	}
	d.finish(ends, time.Now())
}
