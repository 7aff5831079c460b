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

// destination is the queue, the limit and the state of one Destination in one lane. Its state is for all its deliveries,
// and for nobody else's:
//
//	       Retry-After, tripAfter faults in a row, no provider token
//	┌──────┐ ──────────────────────────────────────────────▶ ┌─────────┐ ─┐ the probe failed:
//	│ OPEN │ ◀────────────────────────────────── probe well │ WAITING │ ◀┘ wait longer
//	└──────┘                                                └─────────┘
//	   │ ▲                                                       │ a credential is refused,
//	   │ └─ probe well ─┐                                        │ or a renewed token is
//	   │           ┌─────────┐ ◀─────────────────────────────────┘
//	   └─────────▶ │ STOPPED │ ─┐ the probe failed:
//	    refused    └─────────┘ ◀┘ wait longer; with a fault that is none of the credential's, as WAITING
//
// In WAITING and STOPPED nothing is sent but one probe, a delivery like any other, each time "until" has passed. Answers
// to requests begun before the state changed concern their own delivery only. What waits too long meanwhile, or takes too
// much of a partition's window, is put off to a retry topic (park.go) without counting an attempt.
type destination struct {
	Destination
	*common
	*gates

	mu    sync.Mutex // guards what follows, and the gates
	queue queue
	// shares is what the queue holds of each partition's window, by partition.
	shares   []share
	inFlight int
	limit    limit
	// pumping says that somebody makes requests of what is queued (pump.go).
	pumping bool
	state   pb.DestinationState
	// epoch grows with every change of state.
	epoch   uint64
	probing bool
	reason  string
	// until is when the next probe may go.
	until time.Time
	// since is when it left OPEN.
	since time.Time
	// pause is how long it waits for the next probe; each failed one doubles it.
	pause time.Duration
	// faults counts bad answers without a good one between.
	faults int
	// well is when the last good answer came, busy when it went from no request in flight to one.
	well, busy time.Time
	// latency is how long an answer takes, smoothed.
	latency time.Duration
	// slow, swept and called: see park.go.
	slow          bool
	swept, called time.Time
	// wanted is how many more of those that are parked may come back, in the look of looked (park.go).
	wanted int
	looked time.Time
	// crowding says that it had to make room at the last tick.
	crowding bool
	// parked is what is in the retry topics on its account within the budget, surplus what is beyond it (budget.go).
	parked, surplus tally
}

const (
	stateOpen    = pb.DestinationState_DESTINATION_STATE_OPEN
	stateWaiting = pb.DestinationState_DESTINATION_STATE_WAITING
	stateStopped = pb.DestinationState_DESTINATION_STATE_STOPPED
	// statePaused is only shown: the others go on beneath it.
	statePaused = pb.DestinationState_DESTINATION_STATE_PAUSED

	// tripAfter is how many faults in a row close a destination. Fewer would close it for one lost connection's worth.
	tripAfter = 10
	// againAtMost is how often one attempt repeats at once what the provider did not process.
	againAtMost = 3
)

// holding says how long a state waits for its next probe: first, and at most.
var (
	holdToken  = [2]time.Duration{250 * time.Millisecond, 10 * time.Second}
	holdFaults = [2]time.Duration{time.Second, time.Minute}
	holdStop   = [2]time.Duration{5 * time.Second, time.Minute}
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
	return &destination{
		Destination: where, common: c, gates: g,
		limit: newLimit(c.provider.Ceiling(where)), state: stateOpen,
	}
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
	if d.queue.len() == 0 || d.life.Err() != nil || !d.room(now) || d.laneHeld() {
		return false
	}
	_, held := d.held()
	return held == nil
}

// room says whether the destination takes one more. Called with mu held.
func (d *destination) room(now time.Time) bool {
	if d.state == stateOpen {
		return d.inFlight < d.slots()
	}
	return !d.probing && !now.Before(d.until)
}

// slots is the most in flight, by what the provider takes and by what this machine can do. Called with mu held.
func (d *destination) slots() int { return min(d.limit.slots(), d.cores.limit(d.latency)) }

// flying is how many requests are in flight.
func (d *destination) flying() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inFlight
}

// refusal is what becomes of a delivery that cannot be sent at all: for the device's sake or for the message's.
func refusal(err error, scope Scope) Verdict {
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "unsendable"}
	}
	return Verdict{Next: End, Outcome: r.Outcome, Code: r.Code, Scope: scope}
}

// learn draws from one answer what it says about the destination, and keeps the job when it is to be asked again here.
// heard is false when the provider was not asked, or there was no answer to learn from. Called with mu held.
func (d *destination) learn(j *job, v Verdict, heard bool, now time.Time) (kept bool) {
	d.inFlight--
	current := j.epoch == d.epoch
	if current {
		d.probing = false
	}
	if !heard {
		return false
	}
	if v.Next == noToken {
		d.hold(current, stateWaiting, v, holdToken, now)
		return d.enqueue(j, d.queue.pushFront)
	}
	d.latency += (now.Sub(j.begun) - d.latency) / 16
	switch {
	case v.Next == Refresh && !j.refreshed:
		j.refreshed = true
		d.provider.Refresh(d.Destination)
		d.hold(current, stateWaiting, v, holdToken, now)
		return d.enqueue(j, d.queue.pushFront)
	case v.Next == Refresh || v.Next == Stop:
		d.hold(current, stateStopped, v, holdStop, now)
		// Behind the others, in case it is this delivery only that the credential may not send.
		return d.enqueue(j, d.queue.push)
	case v.Next == Later && (v.Slow || v.Scope == ScopeDestination):
		d.fault(current, j, v, now)
	default:
		d.good(current, now)
	}
	return false
}

// fault notes a sign of overload or trouble. Called with mu held.
func (d *destination) fault(current bool, j *job, v Verdict, now time.Time) {
	if v.Scope != ScopeDestination {
		v.After = 0 // its own delivery's
	}
	if !current {
		d.hold(false, stateWaiting, v, holdFaults, now)
		return
	}
	d.limit.shrink(j.begun, now)
	d.faults++
	if v.After > 0 || d.faults >= tripAfter || d.state != stateOpen {
		d.hold(current, stateWaiting, v, holdFaults, now)
	}
}

// good notes an answer that shows the destination at work, whatever it says about the delivery. Called with mu held.
func (d *destination) good(current bool, now time.Time) {
	d.well = now
	d.faults = 0
	switch {
	case d.state == stateOpen && current:
		d.limit.grow(d.inFlight + 1)
	case current:
		d.log.Info("destination is open again", "destination", d.label(), "after", now.Sub(d.since).Round(time.Millisecond))
		d.state, d.reason, d.pause = stateOpen, "", 0
		d.until = time.Time{}
		d.epoch++
		d.limit.reopen()
	}
}

// hold moves to a state that waits, or waits longer in it. An answer from before the present state may only make a hold
// worse: STOPPED from WAITING, or a later Retry-After. Called with mu held.
func (d *destination) hold(current bool, to pb.DestinationState, v Verdict, times [2]time.Duration, now time.Time) {
	if !current && (d.state == stateOpen || to <= d.state) {
		if at := now.Add(v.After); d.state != stateOpen && at.After(d.until) {
			d.until = at
		}
		return
	}
	if d.state == stateOpen {
		d.since = now
	}
	if to != d.state {
		d.pause = 0
		d.announce(to, v)
	}
	d.state, d.reason = to, v.Code
	d.pause = min(max(times[0], d.pause*2), times[1])
	d.until = now.Add(max(d.pause, v.After))
	d.probing = false
	d.epoch++
}

// announce says once that the destination waits or is stopped, and what mends it. A token on its way is the provider's to
// speak of. Called with mu held.
func (d *destination) announce(to pb.DestinationState, v Verdict) {
	switch {
	case to == stateStopped:
		d.log.Error("destination is stopped: the provider refuses its credential. Its deliveries wait, and one is tried now and then. "+
			"Mend the app's credential in the configuration", "destination", d.label(), "reason", v.Code)
	case d.state == stateOpen && v.Next == Later:
		d.log.Warn("destination waits: its deliveries are kept, and one is tried now and then", "destination", d.label(), "reason", v.Code)
	}
}

func (d *destination) label() string { return d.App + "/" + d.Name }

// status is the destination's line in the lane's status.
func (d *destination) status(now time.Time) *pb.DestinationStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &pb.DestinationStatus{
		App: d.App, Name: d.Name, State: d.state, Reason: d.reason,
		InFlight: uint64(d.inFlight), Limit: uint64(d.limit.slots()), Parked: uint64(d.parked.count(now) + d.surplus.count(now)),
	}
	if d.state != stateOpen {
		s.Until = d.until.UnixMilli()
	}
	if name, r := d.held(); r != nil {
		s.State, s.Reason, s.Until = statePaused, strings.TrimSuffix(string(name)+": "+r.Reason, ": "), 0
	}
	if s.State != stateOpen {
		s.Parked += uint64(d.queue.len())
	}
	return s
}
