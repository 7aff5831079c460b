package webpush

import (
	"strings"
	"sync"
	"time"

	"github.com/belfry/belfry/schemas"
)

const (
	// maxOrigins is how many origins beside the browsers' own have a destination to themselves, for each app. Whoever may
	// register a device may name an origin, so they must be bounded.
	maxOrigins = 64
	// originIdle is how long one keeps its place unused.
	originIdle = 10 * time.Minute
)

// origins names an app's destinations.
type origins struct {
	mu   sync.Mutex // guards used, by origin
	used map[string]use
}

type use struct {
	// name is a copy of the origin: that which is asked for may lie in a record, whose buffer is used again.
	name string
	at   time.Time
}

func newOrigins() *origins { return &origins{used: make(map[string]use)} }

// name is the destination of a canonical origin. It may be kept.
func (o *origins) name(origin string) string {
	if name, known := schemas.PushService(origin); known {
		return name
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	u, known := o.used[origin]
	if !known {
		if len(o.used) >= maxOrigins && !o.evict(now) {
			return schemas.DestinationOther
		}
		u.name = strings.Clone(origin)
	}
	u.at = now
	o.used[u.name] = u
	return u.name
}

// evict makes room if an origin has not been used for long. It must be called with mu held.
func (o *origins) evict(now time.Time) bool {
	for origin, u := range o.used {
		if now.Sub(u.at) > originIdle {
			delete(o.used, origin)
			return true
		}
	}
	return false
}
