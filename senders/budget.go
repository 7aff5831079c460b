package senders

import (
	"maps"
	"time"

	"github.com/belfry/belfry/schemas"
)

// budget is what deliveries may take up that wait for their destination's sake. All of it is for one instance.
//
// Three things cannot be had at once when more wait than it allows: that others on the same partitions go on, that the
// outage copies nothing, and that each comes back soon. The first stands: a record that is not done stays in the window, and
// whoever lies behind it waits with it. So the surplus is copied, once in surplusFor, and it is the time of its return that
// gives way: it lies on the longest tier, where it stands before nothing that is within a budget. That is no matter of
// pace: to copy it slower would keep it in the window for longer.
type budget struct {
	// window is a destination's part of each partition's window.
	window share
	// parked is how many may be in the shorter retry topics on a destination's account, lane how many on all of them.
	parked, lane int
}

const (
	// shareOf is the part of a partition's window, one in so many, that destinations which must make room hold together.
	shareOf = 4
	// laneBudget, as schemas.ParkBudget, is for all instances together, who share them by partitions. At the latter the
	// expanders hold an app's chunks back, so only what does not come from there makes a surplus: replays, what somebody waits
	// for, what was on the topic.
	laneBudget = 4 * schemas.ParkBudget
)

var surplusFor = schemas.Tiers[len(schemas.Tiers)-1].Delay

// tend looks after a lane's destinations. b is the lane's, with the whole of each window's part.
func tend(all []*destination, now time.Time, b budget) {
	idle, crowding := false, 0
	for _, d := range all {
		s := d.look(now)
		idle = idle || s.idle
		if s.crowding {
			crowding++
		}
		b.lane -= s.parked
	}
	b.window.records /= max(crowding, 1)
	b.window.bytes /= int64(max(crowding, 1))
	for _, d := range all {
		// One with a queue is not idle itself, and one without has nothing to put off.
		b.lane -= d.tick(now, idle, b)
	}
}

// sight is what a lane must know of a destination to look after the others.
type sight struct {
	// idle says that it is at work and would take more than it gets, crowding that it had to make room at the last tick.
	idle, crowding bool
	parked         int
}

func (d *destination) look(now time.Time) sight {
	d.mu.Lock()
	defer d.mu.Unlock()
	return sight{
		idle:     d.breaker.state == stateOpen && d.queue.len() == 0 && now.Sub(d.well) < 10*time.Second,
		crowding: d.crowding && d.queue.len() > 0,
		parked:   d.inBudget(now),
	}
}

// tally counts deliveries in the retry topics until they fall due, by the second (Unix) in which they do. It knows nothing
// of what was there before this process: that is counted when it is put off again.
type tally struct {
	due map[int64]int
	n   int
	// swept is the second up to which what fell due is gone.
	swept int64
}

func (t *tally) add(due time.Time) {
	if t.due == nil {
		t.due = map[int64]int{}
	}
	t.due[due.Unix()]++
	t.n++
}

func (t *tally) count(now time.Time) int {
	if s := now.Unix(); s > t.swept {
		t.swept = s
		maps.DeleteFunc(t.due, func(due int64, n int) bool {
			if due >= s {
				return false
			}
			t.n -= n
			return true
		})
	}
	return t.n
}

// remove takes one off that is back before its time, and says whether there was one.
func (t *tally) remove(due time.Time) bool {
	// It was written a little later than it was counted.
	for _, second := range []int64{due.Unix(), due.Unix() - 1} {
		if t.due[second] > 0 {
			t.due[second]--
			t.n--
			return true
		}
	}
	return false
}
