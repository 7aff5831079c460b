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

// wants says that a parked delivery should come back before its time: the destination has room, or lacks one to probe
// with. All that it is asked about in one look have the same now; no more of them are wanted than it can begin within a
// second, or those beyond would only be put off once more.
func (d *destination) wants(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, held := d.held(); held != nil || d.laneHeld() {
		return false
	}
	if d.state == stateOpen {
		if !now.Equal(d.looked) {
			d.looked, d.wanted = now, d.takes(now)-d.queue.len()
		}
		d.wanted--
		return d.wanted >= 0 && now.Sub(d.starved) > starvedFor
	}
	if d.queue.len() > 0 || d.probing || now.Before(d.until) || now.Sub(d.called) < patience {
		return false
	}
	d.called = now
	return true
}

// takes is how many requests may begin within a second, roughly. Called with mu held.
func (d *destination) takes(now time.Time) int {
	n := float64(d.slots()-d.inFlight) + d.drain(now)
	if rate := d.slowest(); rate >= 0 {
		n = min(n, rate)
	}
	return int(math.Ceil(n))
}

// drain is how many requests it can end a second, by how long an answer takes, or is out already. Called with mu held.
func (d *destination) drain(now time.Time) float64 {
	latency := max(d.latency, time.Millisecond)
	if d.inFlight > 0 {
		latency = max(latency, now.Sub(d.moved()))
	}
	return float64(d.slots()) / latency.Seconds()
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
	d.start(now)
	before := d.parked.count(now)
	moved := d.overdue(now, othersIdle, b)
	parked := d.parked.count(now) - before
	over := d.over(now)
	d.mu.Unlock()
	for i := range moved {
		if v, ok := moved[i].check(now); !ok {
			moved[i].verdict = v
		}
	}
	for _, j := range over {
		v, _ := j.check(now)
		moved = append(moved, ended{j, v})
	}
	d.finish(moved, now)
	return parked
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
	before := d.parked.count(now)
	room := min(b.parked-before, b.lane)
	out := make([]ended, len(moved))
	for i, j := range moved {
		v := d.away(j, before+i, stuck, now)
		to := &d.parked
		if i >= room {
			v.After, to = surplusFor, &d.surplus
		}
		_, due := parkAt(v.After, j.expires, now)
		to.add(due)
		out[i] = ended{j, v}
	}
	return out
}

// away is the word for a job that is put off as the n-th: for how long, and why. Called with mu held.
func (d *destination) away(j *job, n int, stuck bool, now time.Time) Verdict {
	v := Verdict{Next: putOff, Code: d.reason}
	_, held := d.held()
	switch rate := d.slowest(); {
	case !stuck:
		v.Code = codePace
		v.After = turnAt(n, j.pace(d.valve))
	case held != nil:
		v.Code = codeHeld
		v.After = now.Sub(time.UnixMilli(held.At))
	case d.state != stateOpen:
		v.After = max(now.Sub(d.since), d.until.Sub(now))
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
	if d.state != stateOpen {
		return now.Sub(d.since) > stalledFor
	}
	stalled := d.inFlight > 0 && now.Sub(d.moved()) > stalledFor
	behind := othersIdle && now.Sub(first.queued) > patience
	ownPace := d.latency > slowAnswer || d.limit.slots() < reopenLimit || now.Sub(d.starved) < starvedFor
	// Once slow it stays so at that pace: else it would fill the window again after each clearing.
	d.slow = ownPace && (d.slow || stalled || behind)
	return d.slow || stalled
}

// unpark notes that a delivery is back before its time. One of the surplus can be taken for one that falls due in the same
// second: both are back soon then.
func (d *destination) unpark(due time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.parked.remove(due) {
		d.surplus.remove(due)
	}
}

// release gives back the queued jobs whose assignment is over.
func (d *destination) release() {
	d.mu.Lock()
	gone := d.takeOut(func(j *job) bool { return j.ctx.Err() != nil })
	d.mu.Unlock()
	ends := make([]ended, len(gone))
	for i, j := range gone {
		ends[i] = ended{j, Verdict{Next: giveBack}}
	}
	d.finish(ends, time.Now())
}
