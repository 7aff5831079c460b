package senders

import (
	"math"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// breaker is the state of one destination in one lane. It is for all its deliveries, and for nobody else's:
//
//	       the service, or no provider token
//	┌──────┐ ────────────────────────────────────────────▶ ┌─────────┐ ─┐ the probe failed:
//	│ OPEN │ ◀──────────────────────────── a probe passed │ WAITING │ ◀┘ wait longer
//	└──────┘                                              └─────────┘
//	   │ ▲                                                     │ a credential is refused,
//	   │ └─ a probe passed ─┐                                  │ or a renewed token is
//	   │              ┌─────────┐ ◀────────────────────────────┘
//	   └────────────▶ │ STOPPED │ ─┐ the probe failed:
//	   the credential └─────────┘ ◀┘ wait longer
//
// How it came there decides how it is probed.
//
// It is known where an answer can be about nothing but the credential, the token or the whole service. Then one delivery is
// tried each time "until" has passed.
//
// Else it is inferred: different targets failed, and none passed (trouble.go). That may still be the targets' own, ninety-nine
// in a hundred of them, and whoever waits for the hundredth must not wait for a timer. So deliveries that have not been asked
// yet go on being asked, probesEach for each doubling of the time that nothing has passed: some 300 in the first second, 1,000 in
// the first minute, 2,500 in the first hour. To a service that is down that is nothing; and where one in a hundred is well, it is
// found in seconds. What was refused before is no probe while another waits, but for rounds: all who are well may have been refused.
// One begins each time "until" has passed, and has one of each run, whatever the others do: of which nothing ever passes is not known.
// And of each run the first few go at once: it may be to others than those that failed, and should not stand in line behind them.
//
// What waits too long meanwhile, or takes too much of a partition's window, is put off to a retry topic (park.go) without
// counting an attempt. Its owner locks.
type breaker struct {
	state  pb.DestinationState
	reason string
	// since is when it left OPEN.
	since time.Time
	// inferred says that it follows from what different targets met.
	inferred bool
	// probes are how many that were not asked before have been since.
	probes int
	// tasted counts by run those of its first few that have been asked since.
	tasted byRun
	// until is when the next probe may go, or round, that is under no count, and pause how long it waits for the one after; each one
	// doubles it. probe is the one that is on its way, where the state is known.
	until time.Time
	probe *job
	pause time.Duration
	// rounds are those that were begun, and tried has the last one that each run had a probe in.
	rounds int
	tried  byRun
	// epoch grows with every change of state: where that is known, answers from before concern their own delivery only.
	epoch uint64
	// told says that the log has it.
	told bool

	service, credential trouble
}

const (
	stateOpen    = pb.DestinationState_DESTINATION_STATE_OPEN
	stateWaiting = pb.DestinationState_DESTINATION_STATE_WAITING
	stateStopped = pb.DestinationState_DESTINATION_STATE_STOPPED
	// statePaused is only shown: the others go on beneath it.
	statePaused  = pb.DestinationState_DESTINATION_STATE_PAUSED
	stateBlocked = pb.DestinationState_DESTINATION_STATE_BLOCKED

	// probesEach deliveries are asked for each doubling of the time since a destination was found ill, which begins with
	// probeUnit.
	probesEach = 128
	probeUnit  = 250 * time.Millisecond
	// tasteEach deliveries of each run are asked at once at a destination that is taken for ill.
	tasteEach = 8
	// heedAtMost is how long a Retry-After that the whole service has said keeps probes away.
	heedAtMost = time.Minute
)

// How long a state waits for its next probe: first, and at most, so that all goes on within ten seconds when it may.
var (
	holdToken = [2]time.Duration{250 * time.Millisecond, time.Second} // without a token nobody is asked
	holdFault = [2]time.Duration{time.Second, 5 * time.Second}
	holdStop  = [2]time.Duration{2 * time.Second, 5 * time.Second}
)

// admits are the deliveries that may be asked.
type admits uint8

const (
	admitsNone admits = iota
	// admitsTaste are those of runs that have not been tasted.
	admitsTaste
	// admitsNew are those that have not been asked before.
	admitsNew
	// admitsRound are those of runs that have had none in this round.
	admitsRound
	// admitsOne is any one, a new one first.
	admitsOne
	admitsAll
)

// admits says who may be asked now.
func (b *breaker) admits(now time.Time) admits {
	switch {
	case b.state == stateOpen:
		return admitsAll
	case b.state == stateBlocked:
		return admitsNone
	case !b.inferred && !now.Before(b.until) && (b.probe == nil || now.Sub(b.probe.begun) >= patience): // one that hangs shows nothing
		return admitsOne
	case b.wanted(now) > 0:
		return admitsNew
	}
	return admitsNone
}

// wanted is how many that have not been asked yet may be, by now, where that is counted.
func (b *breaker) wanted(now time.Time) int {
	if !b.inferred || b.state == stateOpen {
		return 0
	}
	spent := max(0, now.Sub(b.since))
	return int(probesEach*math.Log2(1+float64(spent)/float64(probeUnit))) - b.probes
}

// untasted says whether more of a run may be asked at once.
func (b *breaker) untasted(run string) bool { return b.inferred && b.tasted.get(run) < tasteEach }

// due says that one of a run may go in this round, or begin the next.
func (b *breaker) due(run string, now time.Time) bool {
	return b.inferred && b.state != stateOpen && (!now.Before(b.until) || b.tried.get(run) < b.rounds)
}

// try notes a round's probe of a run.
func (b *breaker) try(run string, now time.Time) {
	if !now.Before(b.until) {
		b.rounds++
		b.later(holdFault, now)
	}
	b.tried.set(run, b.rounds)
}

// asked notes a delivery that is being asked.
func (b *breaker) asked(j *job, now time.Time) {
	j.epoch = b.epoch
	switch {
	case b.state == stateOpen:
	case !j.again && b.untasted(j.name):
		b.tasted.set(j.name, b.tasted.get(j.name)+1)
	case !j.again && b.wanted(now) > 0:
		b.probes++
	case b.inferred:
		b.try(j.name, now)
	default:
		b.probe = j
	}
}

// later moves the next probe on.
func (b *breaker) later(times [2]time.Duration, now time.Time) {
	b.pause = min(max(times[0], 2*b.pause), times[1])
	b.until = now.Add(b.pause)
}

// answered notes that the answer to a delivery is there. It says whether that was asked in the present state.
func (b *breaker) answered(j *job) (current bool) {
	if b.probe == j {
		b.probe = nil
	}
	return j.epoch == b.epoch
}

// hold moves to a state that is known, or waits longer in it. An answer from before the present state may only make a hold
// worse: STOPPED from WAITING, or a later Retry-After.
func (b *breaker) hold(current bool, to pb.DestinationState, v Verdict, times [2]time.Duration, now time.Time) {
	after := now.Add(min(v.After, heedAtMost))
	if !current && (b.state == stateOpen || to <= b.state) {
		if b.state != stateOpen && after.After(b.until) {
			b.until = after
		}
		return
	}
	if to != b.state || b.inferred {
		b.pause = 0
	}
	b.enter(to, v.Code, false, now)
	b.later(times, now)
	if after.After(b.until) {
		b.until = after
	}
}

// infer moves to a state that follows from what different targets met.
func (b *breaker) infer(to pb.DestinationState, code string, now time.Time) {
	if b.state != stateOpen && (!b.inferred || to <= b.state) {
		return
	}
	if b.state == stateOpen {
		b.pause, b.probes = 0, 0
		b.later(holdFault, now)
	}
	b.enter(to, code, true, now)
}

func (b *breaker) enter(to pb.DestinationState, code string, inferred bool, now time.Time) {
	if b.state == stateOpen {
		b.since = now
		b.rounds, b.tasted, b.tried = 0, byRun{}, byRun{}
	}
	b.told = b.told && to == b.state
	b.state, b.reason, b.inferred, b.probe = to, code, inferred, nil
	b.epoch++
}

// passed says whether an answer opens the destination that shows the service at work, and with accepted the credential too, to a
// delivery that was asked at begun, in the present state if current.
func (b *breaker) passed(begun time.Time, current, accepted bool) bool {
	ill := &b.service
	if b.state == stateStopped {
		ill = &b.credential
	}
	switch {
	case b.state == stateOpen, b.state == stateBlocked:
		return false
	case !b.inferred:
		return current
	case b.state == stateStopped && !accepted:
		return false
	}
	// It may have been asked before the state was found out, but not before what it was found out by.
	return !begun.Before(ill.since)
}

func (b *breaker) open() {
	b.state, b.reason, b.inferred, b.probe, b.told = stateOpen, "", false, nil, false
	b.pause, b.until = 0, time.Time{}
	b.epoch++
}
