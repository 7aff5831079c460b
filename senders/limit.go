package senders

import "time"

const (
	// startLimit is where a destination's limit begins: enough to fill one HTTP/2 connection of any provider (FCM allows
	// about 100 streams), so that a well destination does not have to be learned first.
	startLimit = 128
	// reopenLimit is where it begins anew after a hold whose reason was the destination's for certain, doubling each round trip,
	// and leastLimit what it is not cut below: a destination that takes nothing at all is the breaker's.
	reopenLimit = 16
	leastLimit  = 16
	// cut is what is left of the limit after signs of overload.
	cut = 0.7
	// judgedPasses are how many must have passed until it is known what share that is, and leastShare the share of refusals that
	// is worth a cut.
	judgedPasses = 100
	leastShare   = 0.02
	// helped is by how much more must pass after a cut, or it was for nothing: all that a destination takes passes out of 0.7 as
	// many, which is 1.43. worse is what a known share of refusals must grow to, to be looked into before its time.
	helped = 1.2
	worse  = 1.5
	// calmFirst and calmMost are how long refusals are taken for the targets' own, once a cut has left it as it was.
	calmFirst, calmMost = time.Minute, 16 * time.Minute
)

// limit is how many requests may be in flight: additive increase, multiplicative decrease. Providers say plainly when it
// is too much (429, 503), and that beats guessing from latency, which drifts.
//
// They say the same of a single target that they will not serve, and then asking for less at a time makes it no better: it
// would only starve the targets that are well. So a cut is tried, and what was refused before it and after it is compared.
// One that changed nothing is taken back, and for a while no other is tried. Its owner locks.
type limit struct {
	value   float64
	ceiling float64
	// doubling until the first cut, as TCP's slow start does.
	doubling bool
	lastCut  time.Time
	// passed and refused are those since the last cut, or since they were judged last.
	passed, refused int
	// before is the share that passed before the last cut, while that is on trial; 0 else.
	before float64
	// calm is until when a share up to known is not looked into, and calmFor how long that was.
	calm    time.Time
	calmFor time.Duration
	known   float64
}

func newLimit(ceiling int) limit {
	c := float64(max(ceiling, 1))
	return limit{value: min(startLimit, c), ceiling: c, doubling: true}
}

// slots is the limit in whole requests, at least 1.
func (l *limit) slots() int { return int(l.value) }

// took learns from an answer that is no refusal, and came while inFlight requests were out. A limit that is not half used
// has proved nothing and stays.
func (l *limit) took(begun time.Time, inFlight int, now time.Time) {
	l.count(begun, false, now)
	if float64(inFlight)*2 < l.value {
		return
	}
	step := 1 / l.value
	if l.doubling {
		step = 1
	}
	l.value = min(l.value+step, l.ceiling)
}

// refuses learns from one that asks for less.
func (l *limit) refuses(begun, now time.Time) { l.count(begun, true, now) }

// count adds an answer, and judges when there are enough. What was in flight at the last cut went out under the old limit, so
// it speaks of that: one bad moment is one cut, however many requests met it.
func (l *limit) count(begun time.Time, refused bool, now time.Time) {
	if !begun.After(l.lastCut) {
		return
	}
	if refused {
		l.refused++
	} else {
		l.passed++
	}
	answers := float64(l.passed + l.refused)
	if l.passed < judgedPasses || answers < 2*l.value { // what one round of them meets says too little
		return
	}
	share := float64(l.refused) / answers
	l.passed, l.refused = 0, 0
	switch {
	case share < leastShare:
		l.before = 0
	case l.before > 0 && 1-share < helped*l.before:
		l.restore(share, now)
	case now.Before(l.calm) && share <= worse*l.known:
	default:
		l.shrink(share, now)
	}
}

// shrink tries a cut.
func (l *limit) shrink(share float64, now time.Time) {
	least := min(leastLimit, l.ceiling)
	l.doubling = false
	if l.value <= least {
		l.before = 0
		return
	}
	l.value = max(least, l.value*cut)
	l.before, l.lastCut = 1-share, now
}

// restore takes the last cut back.
func (l *limit) restore(share float64, now time.Time) {
	l.value = min(l.value/cut, l.ceiling)
	l.before, l.known = 0, share
	l.calmFor = min(max(2*l.calmFor, calmFirst), calmMost)
	l.calm = now.Add(l.calmFor)
}

// reopen begins anew after a hold, with no more than so many.
func (l *limit) reopen(most float64) {
	l.value = min(l.value, most)
	l.doubling, l.before, l.passed, l.refused = true, 0, 0, 0
}
