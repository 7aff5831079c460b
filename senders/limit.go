package senders

import "time"

const (
	// startLimit is where a destination's limit begins: enough to fill one HTTP/2 connection of any provider (FCM allows
	// about 100 streams), so that a well destination does not have to be learned first.
	startLimit = 128
	// reopenLimit is where it begins anew after a hold, doubling each round trip.
	reopenLimit = 16
	// cut is what is left of the limit after a sign of overload.
	cut = 0.7
)

// limit is how many requests may be in flight: additive increase, multiplicative decrease. Providers say plainly when it
// is too much (429, 503), and that beats guessing from latency, which drifts (kafka-lessons 2.3). Its owner locks.
type limit struct {
	value   float64
	ceiling float64
	// doubling until the first cut, as TCP's slow start does.
	doubling bool
	lastCut  time.Time
}

func newLimit(ceiling int) limit {
	c := float64(max(ceiling, 1))
	return limit{value: min(startLimit, c), ceiling: c, doubling: true}
}

// slots is the limit in whole requests, at least 1.
func (l *limit) slots() int { return int(l.value) }

// grow learns from a good answer that came while inFlight requests were out. A limit that is not half used has proved
// nothing and stays.
func (l *limit) grow(inFlight int) {
	if float64(inFlight)*2 < l.value {
		return
	}
	step := 1 / l.value
	if l.doubling {
		step = 1
	}
	l.value = min(l.value+step, l.ceiling)
}

// shrink learns from a bad answer to a request begun at the given time. What was in flight at the last cut went out
// under the old limit, so it does not cut again: one bad moment is one cut, however many requests met it.
func (l *limit) shrink(begun, now time.Time) {
	if begun.Before(l.lastCut) {
		return
	}
	l.value = max(1, l.value*cut)
	l.doubling = false
	l.lastCut = now
}

// reopen begins anew after a hold.
func (l *limit) reopen() {
	l.value = min(l.value, reopenLimit)
	l.doubling = true
}
