package senders

import "time"

// flight counts a destination's requests that are out.
//
// A target that answers late, or never, holds a place for up to the request's whole time, and a few hundred such would hold
// every place that the limit has. So a request is late when it has been out for some times as long as the quicker ones take, and one
// that was begun after it has passed: then it is its target that is slow, and its place may be another's, up to the destination's
// ceiling. Where nothing passes nobody is late, and all of them together show that the destination is ill; then it is the breaker that
// counts, and none of them is in its way. Where all answers take their time, since this machine's cores are others', nobody is late
// either: more in flight would make them later still. Its owner locks.
type flight struct {
	n int
	// begun counts them by the flightUnit in which they were begun: a ring.
	begun []int32
	// passed is when the newest of those was begun that showed the service at work.
	passed time.Time
	// late is how many are, at the last look.
	late int
	// quick is what a quarter of the answers that passed take no longer than, about: also where every second target is slow.
	quick time.Duration
}

const (
	// A request is late after lateTimes the quick ones' time, within these bounds: the most is longer than a provider that is well
	// takes, whatever the distance.
	lateTimes             = 5
	lateLeast, lateMost   = 150 * time.Millisecond, time.Second
	flightUnit            = 50 * time.Millisecond
	quickQuarter, quickly = 0.25, 0.1
)

// newFlight is for requests that take timeout at most.
func newFlight(timeout time.Duration) flight {
	return flight{begun: make([]int32, (timeout+2*time.Second)/flightUnit), quick: lateMost / lateTimes}
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

// took notes how long one was out that passed. In the long run a quarter of them are quicker than quick.
func (f *flight) took(d time.Duration) {
	if d < f.quick {
		f.quick -= time.Duration(quickly * (1 - quickQuarter) * float64(f.quick))
	} else {
		f.quick += time.Duration(quickly * quickQuarter * float64(f.quick))
	}
	f.quick = min(max(f.quick, lateLeast/lateTimes), lateMost/lateTimes)
}

// look counts the late ones; ill says that the destination takes nothing.
func (f *flight) look(ill bool, now time.Time) {
	newest := f.unit(now.Add(-lateTimes*f.quick)) - 1
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
