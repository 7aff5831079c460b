package senders

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// saved is how much of its rate a bucket may save up, and how much what is urgent may take ahead. Ticks fill it ten times
	// a second.
	saved = 250 * time.Millisecond
	// starvedFor is how long a refusal shows that a rate, and nothing else, sets the pace.
	starvedFor = time.Second
	// urgentPart is what the urgent lane's partitions count for in a rate that holds for both classes: with a process for each
	// class, all of what is urgent has that part of it, and campaigns the rest.
	urgentPart = 0.25
)

// Rates are what the lanes of one platform in a process have in common: an app's rate and a destination's hold for urgent
// and bulk together, and what one has learnt of a destination the other knows.
type Rates struct {
	// parts are how much of a lane's partitions this instance has, 0 to 1, float64s' bits, by class.
	parts [pb.Class_CLASS_BULK + 1]atomic.Uint64

	mu sync.Mutex // guards what follows
	// buckets are as many as destinations, and apps; known as many as destinations.
	buckets map[control.Name]*bucket
	known   map[control.Name]*known
}

// known is what both lanes know of a destination.
type known struct {
	learnt
	// accepted is when the newest delivery that was accepted had been asked, mended when the newest of those that had failed before. What
	// has passed in one lane would have in the other.
	accepted, mended newest
}

// newest is the latest of some times. The zero value is long ago.
type newest struct{ ns atomic.Int64 }

func (n *newest) note(t time.Time) {
	for at := t.UnixNano(); ; {
		before := n.ns.Load()
		if at <= before || n.ns.CompareAndSwap(before, at) {
			return
		}
	}
}

func (n *newest) get() time.Time { return time.Unix(0, n.ns.Load()) }

// NewRates makes them for the lanes of one platform.
func NewRates() *Rates {
	return &Rates{buckets: map[control.Name]*bucket{}, known: map[control.Name]*known{}}
}

// own notes the part of a lane's partitions that this instance has.
func (r *Rates) own(c pb.Class, part float64) { r.parts[c].Store(math.Float64bits(part)) }

// part is what own noted.
func (r *Rates) part(c pb.Class) float64 { return math.Float64frombits(r.parts[c].Load()) }

// share is this instance's part of a rate that holds for both classes, by its parts of their partitions: so all instances'
// parts add up to one, and none that has partitions of either has nothing.
func (r *Rates) share(rate float64) float64 {
	return rate * (urgentPart*r.part(pb.Class_CLASS_URGENT) + (1-urgentPart)*r.part(pb.Class_CLASS_BULK))
}

// bucket is the one that all lanes draw from under a name.
func (r *Rates) bucket(n control.Name) *bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[n]
	if b == nil {
		b = &bucket{}
		r.buckets[n] = b
	}
	return b
}

// of is what all lanes know of a destination.
func (r *Rates) of(n control.Name) *known {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.known[n]
	if k == nil {
		k = &known{}
		r.known[n] = k
	}
	return k
}

// bucket lets through so many requests a second. Safe for concurrent use.
type bucket struct {
	mu     sync.Mutex
	tokens float64
	filled time.Time
	// refused is when it last refused one.
	refused time.Time
}

// draw takes up to n requests' tokens at this rate, per second, and says how many it got. A rate of 0 lets none go.
//
// Who may go ahead, which is what is urgent, may run into debt. So it does not wait for tokens that bulk took a moment before,
// and when both want more than there is, bulk waits until the debt is paid: what both take adds up to the rate.
func (b *bucket) draw(n int, rate float64, ahead bool, now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := max(1, rate*saved.Seconds())
	b.tokens = min(most, b.tokens+rate*max(0, now.Sub(b.filled).Seconds()))
	b.filled = now
	there := b.tokens
	if ahead {
		there += most
	}
	got := min(n, max(0, int(there)))
	if rate == 0 {
		got = 0
	}
	if got < n {
		b.refused = now
	}
	b.tokens -= float64(got)
	return got
}

// giveBack returns the tokens of n requests that did not go after all.
func (b *bucket) giveBack(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens += float64(n)
}

// starved says that requests wait for its tokens.
func (b *bucket) starved(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Sub(b.refused) < starvedFor
}
