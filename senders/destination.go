package senders

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
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
	provider Provider
	timeout  time.Duration
	// finish ends a job, puts it off or gives it back: the lane's.
	finish func(*job, Verdict)
	log    *slog.Logger
	// life ends when nobody waits for answers any more.
	life context.Context
	*gates
	// workers counts the goroutines of all the lane's destinations: one for each request in flight, since the libraries'
	// transports block. They start when there is work within the limit and end when there is none.
	workers *sync.WaitGroup

	mu    sync.Mutex // guards what follows, and the gates
	queue queue
	// shares is what the queue holds of each partition's window.
	shares   map[int32]share
	inFlight int
	limit    limit
	cores    *pressure
	state    pb.DestinationState
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
	// parked counts what is in the retry topics on its account, by the second (Unix) in which it falls due.
	parked map[int64]uint64
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

func newDestination(where Destination, p Provider, g *gates, timeout time.Duration, finish func(*job, Verdict), life context.Context, workers *sync.WaitGroup, log *slog.Logger) *destination {
	return &destination{
		Destination: where, provider: p, gates: g, timeout: timeout, finish: finish, life: life, workers: workers, log: log,
		shares: map[int32]share{}, parked: map[int64]uint64{}, limit: newLimit(p.Ceiling(where)), state: stateOpen,
	}
}

// push takes a job. It never waits.
func (d *destination) push(j *job) {
	j.queued = time.Now()
	d.mu.Lock()
	kept := d.enqueue(j, d.queue.push)
	d.start(j.queued)
	d.mu.Unlock()
	if !kept {
		d.finish(j, Verdict{Next: giveBack})
	}
}

// enqueue and dequeue keep shares in step with the queue. A job whose assignment is over is not taken: release, which
// follows the end of an assignment, may have been here already. Called with mu held.
func (d *destination) enqueue(j *job, put func(*job)) bool {
	if j.ctx.Err() != nil {
		return false
	}
	put(j)
	d.account(j, 1)
	return true
}

func (d *destination) dequeue(now time.Time) *job {
	j := d.queue.pop(func(j *job) bool { return d.let(j, now) })
	if j != nil {
		d.account(j, -1)
	}
	return j
}

// ready says whether a request may begin. Called with mu held.
func (d *destination) ready(now time.Time) bool {
	switch {
	case d.queue.len() == 0 || d.life.Err() != nil || d.laneHeld():
		return false
	case d.state == stateOpen && d.inFlight >= d.slots():
		return false
	case d.state != stateOpen && (d.probing || now.Before(d.until)):
		return false
	}
	_, held := d.held()
	return held == nil
}

// slots is the most in flight, by what the provider takes and by what this machine can do. Called with mu held.
func (d *destination) slots() int { return min(d.limit.slots(), d.cores.limit(d.latency)) }

// flying is how many requests are in flight.
func (d *destination) flying() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inFlight
}

// start gives work to new workers while there is work to begin. Called with mu held.
func (d *destination) start(now time.Time) {
	for j := d.begin(now); j != nil; j = d.begin(now) {
		d.workers.Go(func() { d.work(j) })
	}
}

// begin takes the next job into flight, or returns nil when none may go. Called with mu held.
func (d *destination) begin(now time.Time) *job {
	if !d.ready(now) {
		return nil
	}
	j := d.dequeue(now)
	if j == nil {
		return nil
	}
	if d.inFlight == 0 {
		d.busy = now
	}
	d.inFlight++
	d.probing = d.state != stateOpen
	j.begun, j.epoch = now, d.epoch
	return j
}

// work is one worker: it asks about one job after another while it may.
func (d *destination) work(j *job) {
	for j != nil {
		v, heard := d.ask(j)
		now := time.Now()
		d.mu.Lock()
		kept := d.learn(j, v, heard, now)
		d.mu.Unlock()
		if !kept {
			d.finish(j, v)
		}
		j = d.next()
	}
}

// next is the worker's next job, or nil when there is none within the limit.
func (d *destination) next() *job {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.begin(now)
	d.start(now) // The limit may have grown, or the destination opened.
	return j
}

// ask makes the request and reads the answer. heard is false when the provider was not asked, or there was no answer to
// learn from.
func (d *destination) ask(j *job) (v Verdict, heard bool) {
	if v, ok := j.check(j.begun); !ok {
		return v, false
	}
	request := &Request{}
	if err := d.provider.Encode(request, j.delivery, j.message, j.begun); err != nil {
		return refusal(err, ScopeMessage), false
	}
	answered := make(reply, 1)
	request.Handler = answered
	for range againAtMost {
		now := time.Now()
		if v, ok := j.check(now); !ok {
			return v, false
		}
		request.Deadline = j.deadline(now, d.timeout)
		d.provider.Send([]*Request{request})
		var res wire.Result
		select {
		case res = <-answered:
		case <-d.life.Done():
			return Verdict{Next: giveBack}, false
		}
		switch refused := (*Refusal)(nil); {
		case res.Err == nil:
		case errors.Is(res.Err, ErrNoToken):
			return Verdict{Next: noToken, Code: "no-token"}, true
		case errors.As(res.Err, &refused):
			return refusal(res.Err, ScopeMessage), false
		}
		j.asked = true
		if v = d.provider.Classify(request, &res); v.Next != Again {
			return v, true
		}
	}
	v.Next = Later
	return v, true
}

// reply takes one request's result to the worker that waits for it.
type reply chan wire.Result

func (r reply) Answered(results []wire.Result) { r <- results[0] }

// refusal is what becomes of a delivery that cannot be sent at all: for the device's sake or for the message's.
func refusal(err error, scope Scope) Verdict {
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "unsendable"}
	}
	return Verdict{Next: End, Outcome: r.Outcome, Code: r.Code, Scope: scope}
}

// learn draws from one answer what it says about the destination, and keeps the job when it is to be asked again here.
// Called with mu held.
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
		InFlight: uint64(d.inFlight), Limit: uint64(d.limit.slots()), Parked: d.parkedCount(now),
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
