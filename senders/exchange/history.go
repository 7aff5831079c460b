package exchange

import (
	"sync"
	"time"

	"github.com/belfry/belfry/senders"
)

const (
	// burst is how many suspect answers in a row, with no success between them, are the destination's fault. With one bad
	// token in five that comes by chance once in 10^14 deliveries.
	burst = 20
	// recent is how long a success proves that a destination is set up right.
	recent = 10 * time.Minute
	// maxDestinations bounds the memory: past it everything is forgotten, which costs a little confidence.
	maxDestinations = 4096
)

// Standing is what a destination's last answers say about one more suspect answer.
type Standing uint8

const (
	// Unproven: no success lately, and not many suspect answers either.
	Unproven Standing = iota
	// Proven: it succeeded lately, so a suspect answer is about the device.
	Proven
	// Burst: it fails for everybody, so the answer is about the destination.
	Burst
)

// History remembers how each destination has been answering. Answers such as "bad device token" are about one device
// when others go through, and about the app's configuration when none does (provider-semantics 2.1 to 2.3, "a burst").
// The zero value is ready; it is safe for concurrent use.
type History struct {
	mu   sync.Mutex
	seen map[senders.Destination]*record
}

type record struct {
	good  time.Time
	inRow int
}

// Success notes that the destination accepted something.
func (h *History) Success(d senders.Destination) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.record(d)
	r.good, r.inRow = time.Now(), 0
}

// Suspect notes an answer that may be about the device or the destination, and says which.
func (h *History) Suspect(d senders.Destination) Standing {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.record(d)
	r.inRow++
	switch {
	case r.inRow >= burst:
		return Burst
	case !r.good.IsZero() && time.Since(r.good) < recent:
		return Proven
	default:
		return Unproven
	}
}

// record must be called with mu held.
func (h *History) record(d senders.Destination) *record {
	if r := h.seen[d]; r != nil {
		return r
	}
	if h.seen == nil || len(h.seen) >= maxDestinations {
		h.seen = make(map[senders.Destination]*record)
	}
	r := &record{}
	h.seen[d.Clone()] = r
	return r
}
