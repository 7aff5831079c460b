package fanout

import (
	"sync"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// ramp is how long a paced campaign takes to its full rate, in a straight line from zero: FCM's guidance for scale.
	ramp = time.Minute
	// burst is how much of its rate a campaign may save up.
	burst = time.Second
	// forget is when a bucket that nobody asked for goes.
	forget = 10 * time.Minute
)

// pacer keeps campaigns to their rates on one platform, with one token bucket each. A token is a delivery. A chunk is let go when its
// tokens are there, or as many as the bucket holds; then it is paid for in full, so the bucket may go below zero and the
// mean is exact. Safe for concurrent use.
type pacer struct {
	platform pb.Platform
	// share is this instance's part of a campaign's rate on the platform: 0 to 1.
	share func() float64

	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	filled time.Time
}

// ready says whether a chunk of cost deliveries may go now.
func (p *pacer) ready(c *pb.Campaign, cost float64, now time.Time) bool {
	if c.Pace.GetPerSecond() == 0 {
		return true
	}
	rate := schemas.PlatformPace(c, p.platform) * p.share()
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.bucket(c, now)
	full := rate * burst.Seconds()
	launched := time.UnixMilli(c.LaunchedAt)
	earned := rate * (ramped(now.Sub(launched)) - ramped(b.filled.Sub(launched)))
	b.tokens = min(full, b.tokens+max(0, earned))
	b.filled = now
	return rate > 0 && b.tokens >= min(cost, full)
}

// pay takes tokens for deliveries, or gives them back when there were fewer than was paid for.
func (p *pacer) pay(c *pb.Campaign, cost float64, now time.Time) {
	if c.Pace.GetPerSecond() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bucket(c, now).tokens -= cost
}

// bucket finds a campaign's, or makes one that is empty.
func (p *pacer) bucket(c *pb.Campaign, now time.Time) *bucket {
	key := c.App + "/" + c.Id
	if b := p.buckets[key]; b != nil {
		return b
	}
	for key, b := range p.buckets {
		if now.Sub(b.filled) > forget {
			delete(p.buckets, key)
		}
	}
	b := &bucket{filled: now}
	p.buckets[key] = b
	return b
}

// ramped is the seconds at full rate that a campaign has earned in so long since its launch.
func ramped(since time.Duration) float64 {
	t, r := max(0, since.Seconds()), ramp.Seconds()
	if t < r {
		return t * t / (2 * r)
	}
	return t - r/2
}
