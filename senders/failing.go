package senders

import "time"

const (
	// failingFor is how long an answer counts at least for what a destination is said to fail at, and twice that at most.
	failingFor = 30 * time.Second
	// failingLeast is how many answers say something.
	failingLeast = 10
)

// failing is which part of a destination's answers were failures that may be its own. One of which only a part fails stays open, and
// what failed waits: an operator should see why. Its owner locks.
type failing struct {
	since       time.Time // when now began
	now, before tried
	code        string // the latest failure's
}

type tried struct{ answers, failures int }

// note takes an answer.
func (f *failing) note(v Verdict, now time.Time) {
	switch age := now.Sub(f.since); {
	case age >= 2*failingFor:
		*f = failing{since: now}
	case age >= failingFor:
		f.since, f.before, f.now = now, f.now, tried{}
	}
	f.now.answers++
	if v.general() {
		f.now.failures++
		f.code = v.Code
	}
}

// share is the part that failed, 0 to 1, and the reason that was given last. 0 where too little is known.
func (f *failing) share(now time.Time) (float64, string) {
	sum := tried{f.before.answers + f.now.answers, f.before.failures + f.now.failures}
	if now.Sub(f.since) >= 2*failingFor || sum.answers < failingLeast || sum.failures == 0 {
		return 0, ""
	}
	return float64(sum.failures) / float64(sum.answers), f.code
}
