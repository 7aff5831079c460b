package webpush

import (
	"strings"
	"sync"
	"time"
)

const (
	// maxOrigins is how many origins beside the browsers' own have a destination to themselves, for each app. Whoever may
	// register a device may name an origin, so they must be bounded.
	maxOrigins = 64
	// originIdle is how long one keeps its place unused.
	originIdle = 10 * time.Minute
	// other is the destination that the rest share.
	other = "other"
)

// vendors are the browsers' push services, by the end of their host names, and the destination each is.
var vendors = []struct{ suffix, name string }{
	{"fcm.googleapis.com", "fcm.googleapis.com"},
	{"updates.push.services.mozilla.com", "updates.push.services.mozilla.com"},
	{".push.apple.com", "web.push.apple.com"},
	{".notify.windows.com", "notify.windows.com"},
}

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
	host := strings.TrimPrefix(origin, "https://")
	for _, v := range vendors {
		if host == v.suffix || v.suffix[0] == '.' && strings.HasSuffix(host, v.suffix) {
			return v.name
		}
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	u, known := o.used[origin]
	if !known {
		if len(o.used) >= maxOrigins && !o.evict(now) {
			return other
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
