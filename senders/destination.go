package senders

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// destination is one Destination in one lane: what waits for it, what is out, and what its answers have taught. Its breaker
// says whether it is asked at all. What it learns from answers is in learn, which is where their scope is decided.
type destination struct {
	Destination
	*common
	*gates

	mu      sync.Mutex // guards what follows, and the gates
	breaker breaker
	queue   queue
	// suspense has those whose refusal may be their own, and cleared those that have come out of it, for whoever holds mu to
	// end them.
	suspense suspense
	cleared  []ended
	// shares is what queue and suspense hold of each partition's window, by partition.
	shares []share
	flight flight
	limit  limit
	// pumping says that somebody makes requests of what is queued (pump.go).
	pumping bool
	// well is when the last good answer came, busy when it went from no request in flight to one.
	well, busy time.Time
	// accepted is when the last delivery that was accepted had been asked.
	accepted time.Time
	// latency is how long an answer takes, smoothed, and failing which part of them fails.
	latency time.Duration
	failing failing
	// near is how far the provider is.
	near distance
	// slow, swept and called: see park.go.
	slow          bool
	swept, called time.Time
	// wanted is how many more of those that are parked may come back, in the look of looked (park.go).
	wanted int
	looked time.Time
	// turns are those that the parked ones' runs take, and calls those of the ones that failed.
	turns, calls turns
	// mended is when one was asked that passed, and had been asked before in vain; recall how many of those that failed before may
	// come back for it (park.go).
	mended time.Time
	recall int
	// crowding says that it had to make room at the last tick.
	crowding bool
	// parked is what is in the retry topics on its account within the budget, asked of them what was asked before, and surplus
	// what is beyond the budget (budget.go).
	parked, asked, surplus tally
	// space is how many more may be parked within the budget until the next tick.
	space int
}

const (
	// againAtMost is how often one attempt repeats at once what the provider did not process.
	againAtMost = 3
	// toldAfter is how long a destination must be ill before it is worth a word, unless an answer says so outright.
	toldAfter = 3 * time.Second
	// knownFor is how long what one that passed has shown is taken for still so: a target that fails again is no news.
	knownFor = time.Minute
)

// common is what a lane's destinations share.
type common struct {
	provider Provider
	timeout  time.Duration
	// finish ends jobs, puts them off or gives them back: the lane's. It has them then.
	finish func(ends []ended, now time.Time)
	log    *slog.Logger
	// life ends when nobody waits for answers any more.
	life context.Context
	// pumps counts the goroutines that make requests, one for each destination that has any to make.
	pumps sync.WaitGroup
	kits  pool[kit]
	// cores is nil in a lane that gives way to nobody.
	cores *pressure
}

func newDestination(where Destination, g *gates, c *common) *destination {
	d := &destination{Destination: where, common: c, gates: g, flight: newFlight(c.timeout)}
	d.breaker.state, d.accepted, d.mended = stateOpen, time.Unix(0, 0), time.Unix(0, 0)
	d.limit = newLimit(c.provider.Ceiling(where))
	return d
}

// block keeps a destination that this process has no credential for: what comes for it waits, here or for another process.
func (d *destination) block(now time.Time) {
	d.breaker.enter(stateBlocked, "no-credential", false, now)
	d.breaker.told = true
	d.log.Error("this process has no credential for a destination: its deliveries wait. Give it the app's credential in its configuration, "+
		"or run the role with the file that the others have", "destination", d.label())
}

// push takes jobs. It never waits.
func (d *destination) push(jobs []*job, now time.Time) {
	var gone []ended
	d.mu.Lock()
	for _, j := range jobs {
		j.queued = now
		if !d.enqueue(j, d.queue.push) {
			gone = append(gone, ended{j, Verdict{Next: giveBack}})
		}
	}
	more := d.claim(now)
	d.mu.Unlock()
	d.finish(gone, now)
	if more {
		s := scratches.Get().(*scratch)
		d.once(s, now)
		scratches.Put(s)
	}
}

// enqueue puts a job into the queue and its partition's share. One whose assignment is over is not taken: release, which
// follows the end of an assignment, may have been here already. Called with mu held.
func (d *destination) enqueue(j *job, put func(*job)) bool {
	if j.ctx.Err() != nil {
		return false
	}
	put(j)
	d.account(j, 1)
	return true
}

// ready says whether a request may begin. Called with mu held.
func (d *destination) ready(now time.Time) bool {
	if d.queue.len() == 0 || d.life.Err() != nil || d.free() <= 0 || d.laneHeld() {
		return false
	}
	if admits := d.admits(now); admits == admitsNone || admits == admitsNew && d.queue.fresh() == 0 {
		return false
	}
	_, held := d.held()
	return held == nil
}

// admits says who may be asked now. Called with mu held.
func (d *destination) admits(now time.Time) admits {
	a := d.breaker.admits(now)
	switch {
	case a == admitsAll: // the lines are many, and this is asked for each job
	case d.queue.any(func(run string, _ bool) bool { return d.breaker.due(run, now) }):
		return admitsRound
	case a == admitsNone && d.queue.any(func(run string, again bool) bool { return !again && d.breaker.untasted(run) }):
		return admitsTaste
	}
	return a
}

// free is how many more may be in flight. Called with mu held.
func (d *destination) free() int { return d.slots() - d.flight.n }

// slots is the most in flight, by what the provider takes and by what this machine can do, and beyond that as many as are
// late for their own sake. Called with mu held.
func (d *destination) slots() int {
	return min(min(d.limit.slots(), d.cores.limit(d.near.get()))+d.flight.late, int(d.limit.ceiling))
}

// usable is how many one run alone may have in flight: see crowd. Called with mu held.
func (d *destination) usable() int {
	n := d.slots()
	return n - n/(crowd+1)
}

// flying is how many requests are in flight.
func (d *destination) flying() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flight.n
}

// refusal is what becomes of a delivery that cannot be sent at all: for the device's sake or for the message's.
func refusal(err error, of Suspects) Verdict {
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "unsendable"}
	}
	return Verdict{Next: End, Outcome: r.Outcome, Code: r.Code, Of: of}
}

// learn draws from one answer what it says of others than its own delivery, and keeps the job when it is to be asked again
// here, or its end must wait. heard is false when the provider was not asked, or there was no answer to learn from. Called
// with mu held.
//
// This is the one place where a scope is decided. An answer that can speak of one thing only is taken by its word: of the
// device or the message, it ends the delivery and shows that the service is at work; of the credential, it stops the
// destination; of the service, it makes it wait. All others are weighed against what others get, but for a limit of the device's
// own: it says nothing of them. v may become another.
func (d *destination) learn(j *job, v *Verdict, heard bool, now time.Time) (kept bool) {
	d.flight.ends(j.begun)
	d.queue.ends(j, *v, heard)
	current := d.breaker.answered(j)
	if !heard {
		return false
	}
	if v.Next == noToken {
		to := stateWaiting
		if v.Code == codeTokenRefused {
			to = stateStopped
		}
		d.breaker.hold(current, to, *v, holdToken, now)
		return d.enqueue(j, d.queue.pushFront)
	}
	d.latency += (now.Sub(j.begun) - d.latency) / 16
	d.failing.note(*v, now)
	d.pace(j, *v, now)
	switch {
	case v.Next == Refresh && !j.refreshed:
		j.refreshed = true
		d.provider.Refresh(d.Destination)
		d.breaker.hold(current, stateWaiting, *v, holdToken, now)
		return d.enqueue(j, d.queue.pushFront)
	case v.Next == Refresh || v.Next == Stop:
		d.breaker.hold(current, stateStopped, *v, holdStop, now)
		// Behind the others, in case it is this delivery only that the credential may not send.
		j.again = true
		return d.enqueue(j, d.queue.push)
	case v.Of&OfService != 0:
		d.fault(current, j, *v, now)
		*v = d.takesNothing(j, *v, now)
	case v.Of&OfCredential != 0:
		return d.doubt(j, *v, now)
	case v.Next == Later: // a limit of that device: it tells that somebody answers, and nothing of what the others would be told
		d.well = now
	case v.Outcome == pb.Outcome_OUTCOME_ACCEPTED || v.Of != 0:
		d.pass(current, j, *v, now)
	}
	return false
}

// pace learns how many may be in flight, and how many may go a minute. Called with mu held.
func (d *destination) pace(j *job, v Verdict, now time.Time) {
	switch {
	case v.Slow:
		d.limit.refuses(j.begun, now)
	case v.Of&OfService == 0:
		d.limit.took(j.begun, d.flight.n+1, now)
	}
	if v.Limited {
		// What a rate keeps back is no attempt.
		j.asked = !d.known.refused(j.name, j.delivery.GetDevice(), j.again, j.begun, now)
	} else {
		d.known.took(j.name, j.again, j.begun, now)
	}
}

// fault notes a failure that is the service's, or the target's own. Called with mu held.
func (d *destination) fault(current bool, j *job, v Verdict, now time.Time) {
	b := &d.breaker
	if v.Of == OfService {
		b.hold(current, stateWaiting, v, holdFault, now)
		return
	}
	// Others that were asked since have passed; or it is known to fail, and others passed lately.
	if !j.begun.After(d.flight.passed) || j.again && now.Sub(d.well) < knownFor {
		return
	}
	b.service.note(j, v)
	switch {
	case b.state != stateOpen && !b.inferred && current:
		b.hold(true, b.state, v, holdFault, now)
	case b.service.general(d.queue.others(b.service.run), now):
		b.infer(stateWaiting, v.Code, now)
	}
}

// stalls looks whether all that may be out is, and nothing comes back: nothing says yet that it failed, and it would be long
// until it does. Called with mu held, each tick.
func (d *destination) stalls(now time.Time) {
	if d.breaker.state == stateOpen && d.queue.len() > 0 && d.flight.n >= d.usable() && now.Sub(d.moved()) > stalledFor {
		d.slow = true // until it keeps another pace: see stuck
		d.breaker.infer(stateWaiting, codeSlow, now)
	}
}

// takesNothing turns the verdict of a delivery that failed at a destination that takes nothing: it is no attempt of its own,
// and comes back as soon as the destination is well, unless it was told for how long it has to wait. Called with mu held.
func (d *destination) takesNothing(j *job, v Verdict, now time.Time) Verdict {
	if d.breaker.state == stateOpen || v.Unknown { // what it may have taken must not be sent without end
		return v
	}
	if j.tooEarly(v, now) {
		return v
	}
	j.asked, j.again = false, true
	if v.After > 0 {
		return v
	}
	v = d.away(j, d.inBudget(now), true, now)
	if d.space--; d.space < 0 {
		v.After = surplusFor
		return d.park(j, v, &d.surplus, now)
	}
	return d.park(j, v, &d.asked, now)
}

// doubt keeps a refusal that is the credential's, or the delivery's own, until it is known. Called with mu held.
func (d *destination) doubt(j *job, v Verdict, now time.Time) bool {
	b := &d.breaker
	b.credential.note(j, v)
	if b.credential.general(d.queue.others(b.credential.run), now) {
		b.infer(stateStopped, v.Code, now)
	}
	if j.ctx.Err() != nil {
		return false
	}
	j.delivery.FirstAttemptAt = j.firstAttempt()
	d.suspense.add(j, v, now)
	d.account(j, 1)
	return true
}

// pass notes an answer that shows the destination at work, whatever it says about the delivery. Called with mu held.
func (d *destination) pass(current bool, j *job, v Verdict, now time.Time) {
	d.well = now
	d.near.note(now.Sub(j.begun), now)
	accepted := v.Outcome == pb.Outcome_OUTCOME_ACCEPTED
	if accepted {
		d.known.accepted.note(j.begun)
	}
	if accepted && j.again {
		d.calls.passed(campaignOf(j.delivery))
		d.turns.passed(campaignOf(j.delivery))
		d.mends(j.begun)
	}
	d.passed(j.begun, current, accepted, now)
}

// heed notes what the other class's lane has had accepted: it goes to the same destination. Called with mu held, each tick.
func (d *destination) heed(now time.Time) {
	if at := d.known.accepted.get(); at.After(d.accepted) {
		d.passed(at, false, true, now)
	}
	if at := d.known.mended.get(); at.After(d.mended) {
		d.mends(at)
	}
}

// passed draws from one that passed, and was asked at begun, what that says of the others. Called with mu held.
func (d *destination) passed(begun time.Time, current, accepted bool, now time.Time) {
	b := &d.breaker
	if begun.After(d.flight.passed) {
		d.flight.passed = begun
	}
	if accepted {
		d.clear(begun, now)
	}
	if b.passed(begun, current, accepted) {
		if b.told {
			d.log.Info("destination is open again", "destination", d.label(), "after", now.Sub(b.since).Round(time.Millisecond))
		}
		d.known.reopened(2*b.service.limited > b.service.failures, b.since, now)
		switch {
		case !b.inferred:
			d.limit.reopen(reopenLimit)
		case b.state == stateWaiting && b.service.said > 0: // it may have been the targets' own
			d.limit.reopen(startLimit)
			// A credential's refusals, or no answers, do not say that so many in flight were too many.
		}
		b.open()
		d.mends(begun)
	}
	if b.service.failures > 0 {
		b.service.ends()
	}
	if accepted && b.credential.failures > 0 {
		b.credential.ends()
	}
}

// clear lets go of those in suspense that were asked before one that was accepted: they end by their own rule. Where all
// had been refused until then, the credential may have been mended in between: they are asked once more, unless they were
// and others were accepted since they were refused first. Called with mu held.
func (d *destination) clear(begun, now time.Time) {
	stopped, before := d.breaker.state == stateStopped, d.accepted
	d.accepted = begun
	for _, e := range d.suspense.clears(begun) {
		d.account(e.job, -1)
		if stopped && !(e.job.again && before.UnixMilli() > e.job.delivery.FirstAttemptAt) {
			e.job.again, e.job.queued = true, now
			if d.enqueue(e.job, d.queue.push) {
				continue
			}
			e.verdict = Verdict{Next: giveBack}
		}
		d.cleared = append(d.cleared, e)
	}
}

// tell says once that the destination waits or is stopped, and what mends it. A token on its way is the provider's to speak
// of. Called with mu held, each tick.
func (d *destination) tell(now time.Time) {
	b := &d.breaker
	soon := now.Sub(b.since) < toldAfter && (b.state == stateWaiting || b.inferred)
	if b.told || b.state == stateOpen || b.reason == codeNoToken || b.reason == codeTokenRefused || soon {
		return
	}
	b.told = true
	switch {
	case b.state == stateStopped && b.inferred:
		d.log.Error("destination is stopped: the provider refuses the deliveries of all devices alike, as it does with a wrong credential. They wait, and others are tried now and then. "+
			"Look whether the app's credential in the configuration is the one that its devices registered with", "destination", d.label(), "reason", b.reason)
	case b.state == stateStopped:
		d.log.Error("destination is stopped: the provider refuses its credential. Its deliveries wait, and one is tried now and then. "+
			"Mend the app's credential in the configuration", "destination", d.label(), "reason", b.reason)
	default:
		d.log.Warn("destination waits: it takes nothing. Its deliveries are kept, and some are tried now and then",
			"destination", d.label(), "reason", b.reason)
	}
}

func (d *destination) label() string { return d.App + "/" + d.Name }

// status is the destination's line in the lane's status.
func (d *destination) status(now time.Time) *pb.DestinationStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := &d.breaker
	s := &pb.DestinationStatus{
		App: d.App, Name: d.Name, State: b.state, Reason: b.reason, Shut: d.shut(now),
		InFlight: uint64(d.flight.n), Limit: uint64(d.limit.slots()), LatencyMs: d.latency.Milliseconds(),
		Parked: uint64(d.parked.count(now) + d.asked.count(now) + d.surplus.count(now)),
	}
	if b.state != stateOpen {
		s.Since = b.since.UnixMilli()
		if b.state != stateBlocked {
			s.Until = b.until.UnixMilli()
		}
	}
	s.Failing, s.FailingCode = d.failing.share(now)
	if perMinute, since := d.known.shown(); perMinute > 0 {
		s.PerMinute, s.PerMinuteSince = perMinute, since.UnixMilli()
	}
	if name, r := d.held(); r != nil {
		s.State, s.Reason, s.Since, s.Until = statePaused, strings.TrimSuffix(string(name)+": "+r.Reason, ": "), r.At, 0
	}
	s.Queued = uint64(d.queue.len() + len(d.suspense.list))
	if s.State != stateOpen {
		s.Parked += s.Queued
	}
	return s
}

// shut says that more deliveries would only be parked. It is never so for want of one to probe with, nor at once where it is
// inferred: who comes just then may be the first that is well. Called with mu held.
func (d *destination) shut(now time.Time) bool {
	if _, held := d.held(); held != nil || d.breaker.state == stateBlocked {
		return true
	}
	if b := &d.breaker; b.state == stateOpen || b.inferred && now.Sub(b.since) < patience {
		return false
	}
	return d.queue.fresh()+d.parked.count(now)+d.surplus.count(now) > 0
}
