package fcm

import (
	"strings"
	"sync"

	"github.com/belfry/belfry/senders"
)

// maxRuns bounds the memory: past it everything is forgotten, which costs a little confidence.
const maxRuns = 1024

// received remembers the campaigns of which FCM took at least one message, so their payload is good.
type received struct {
	mu   sync.Mutex
	runs map[[2]string]struct{}
}

// add notes a success. A delivery with a message of its own proves nothing for any other.
func (s *received) add(r *senders.Request) {
	if r.Delivery.GetMessage() != nil {
		return
	}
	key := [2]string{r.Delivery.GetApp(), r.Delivery.GetRun()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.runs[key]; known {
		return
	}
	if s.runs == nil || len(s.runs) >= maxRuns {
		s.runs = make(map[[2]string]struct{})
	}
	s.runs[[2]string{strings.Clone(key[0]), strings.Clone(key[1])}] = struct{}{}
}

func (s *received) has(r *senders.Request) bool {
	if r.Delivery.GetMessage() != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.runs[[2]string{r.Delivery.GetApp(), r.Delivery.GetRun()}]
	return ok
}
