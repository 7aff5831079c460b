package senders

import "time"

// flight counts a destination's requests that are out.
//
// A target that answers late, or never, holds a place for up to the request's whole time, and a few hundred such would hold
// every place that the limit has. So a request is late when it has been out for lateAfter and one that was begun after it has
// passed: then it is its target that is slow, and its place may be another's, up to the destination's ceiling. Where nothing
// passes nobody is late, and all of them together show that the destination is ill; then it is the breaker that counts, and
// none of them is in its way. Its owner locks.
type flight struct {
	n int
	// begun counts them by the flightUnit in which they were begun: a ring.
	begun []int32
	// passed is when the newest of those was begun that showed the service at work.
	passed time.Time
	// late is how many are, at the last look.
	late int
}

const (
	// lateAfter is longer than a provider that is well takes, whatever the distance.
	lateAfter  = time.Second
	flightUnit = 250 * time.Millisecond
)

// newFlight is for requests that take timeout at most.
func newFlight(timeout time.Duration) flight {
	return flight{begun: make([]int32, timeout/flightUnit+8)}
}

func (f *flight) unit(at time.Time) int64 { return at.UnixMilli() / flightUnit.Milliseconds() }

func (f *flight) slot(unit int64) *int32 { return &f.begun[unit%int64(len(f.begun))] }

func (f *flight) begins(now time.Time) {
	f.n++
	*f.slot(f.unit(now))++
}

func (f *flight) ends(begun time.Time) {
	f.n--
	*f.slot(f.unit(begun))--
}

// look counts the late ones; ill says that the destination takes nothing.
func (f *flight) look(ill bool, now time.Time) {
	newest := f.unit(now.Add(-lateAfter)) - 1
	if !ill {
		newest = min(newest, f.unit(f.passed))
	}
	f.late = 0
	if f.n == 0 || !ill && f.passed.IsZero() {
		return
	}
	for unit := f.unit(now) - int64(len(f.begun)) + 1; unit <= newest; unit++ {
		f.late += int(*f.slot(unit))
	}
}
