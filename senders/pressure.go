package senders

import (
	"math"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// pressure is the most that each destination of a bulk lane may have in flight for the sake of this machine's cores.
//
// A campaign could have thousands of requests in flight, and each answer makes a goroutine ready to run. When the cores are
// busy, these queue for them, and with them queues every step of an urgent delivery, from the API on: goroutines have no
// priorities. More in flight than the cores can serve makes a campaign no faster. So a bulk lane watches how long
// goroutines wait for a core, and has less in flight while that is long. The nil pressure has no limit.
type pressure struct {
	slots atomic.Int64
	// value is slots before rounding.
	value  float64
	sample []metrics.Sample
	// counts are the histogram's at the last look.
	counts []uint64
}

const (
	// waitTarget is what nine of ten waits for a core should be below. An urgent delivery has some twenty on its way.
	waitTarget = 300 * time.Microsecond
	// leastSlots keep a destination going on a machine that others keep busy.
	leastSlots = 16
	// A request that waits for a provider far away waits for no core: for each farSlot that the nearest answer takes, one more
	// may be in flight however busy the cores are.
	farSlot = 2 * time.Millisecond
	// nearFor is for how long an answer says how near the provider is.
	nearFor = 5 * time.Second
	// waitMetric is a histogram of the time that goroutines were ready before they ran.
	waitMetric = "/sched/latencies:seconds"
)

func newPressure() *pressure {
	p := &pressure{value: reopenLimit, sample: []metrics.Sample{{Name: waitMetric}}}
	p.slots.Store(reopenLimit)
	return p
}

// limit is the most in flight to a destination that is so far away.
func (p *pressure) limit(away time.Duration) int {
	if p == nil {
		return math.MaxInt
	}
	return max(int(p.slots.Load()), int(away/farSlot))
}

// distance is the least time that a good answer took of late. The others took longer for what they met on the way, and much of that may
// be this machine: a lane whose cores others have sees all answers late, and with more in flight for it they would be later still, until
// none is in time. Its owner locks.
type distance struct {
	// least is since since, and before that of the span before.
	least, before time.Duration
	since         time.Time
}

func (d *distance) note(took time.Duration, now time.Time) {
	if now.Sub(d.since) >= nearFor {
		d.before, d.least, d.since = d.least, took, now
	}
	d.least = min(d.least, took)
}

func (d *distance) get() time.Duration {
	if d.before == 0 { // it is the first span
		return d.least
	}
	return min(d.before, d.least)
}

// adjust learns from the waits since it was called last. busiest is the most that a destination has in flight: a limit that
// is not half used has proved nothing. One goroutine calls it, every tickEvery.
func (p *pressure) adjust(busiest int) {
	if p == nil {
		return
	}
	p.learn(p.wait(), busiest)
}

func (p *pressure) learn(wait time.Duration, busiest int) {
	switch {
	case busiest == 0:
		// A campaign begins anew: what the cores could serve then is not what they can now.
		p.value = min(p.value, reopenLimit)
	case wait > waitTarget:
		p.value = max(leastSlots, min(p.value, float64(busiest))*cut)
	case float64(busiest)*2 >= p.value:
		p.value = p.value*1.1 + 1
	}
	p.slots.Store(int64(p.value))
}

// wait is what nine of ten waits since the last call were at most, roughly; 0 when there was none.
func (p *pressure) wait() time.Duration {
	metrics.Read(p.sample)
	h := p.sample[0].Value.Float64Histogram()
	if p.counts == nil {
		p.counts = make([]uint64, len(h.Counts))
	}
	var total, sum uint64
	for i, n := range h.Counts {
		h.Counts[i] -= p.counts[i]
		p.counts[i] = n
		total += h.Counts[i]
	}
	for i, n := range h.Counts {
		if sum += n; n > 0 && sum*10 >= total*9 {
			return time.Duration(h.Buckets[i] * float64(time.Second))
		}
	}
	return 0
}
