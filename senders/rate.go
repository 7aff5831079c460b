package senders

import (
	"sync"
	"time"
)

const (
	// saved is how much of its rate a bucket may save up. Ticks fill it ten times a second.
	saved = 250 * time.Millisecond
	// starvedFor is how long a refusal shows that a rate, and nothing else, sets the pace.
	starvedFor = time.Second
)

// bucket lets through so many requests a second. Safe for concurrent use.
type bucket struct {
	mu     sync.Mutex
	tokens float64
	filled time.Time
	// refused is when it last refused one.
	refused time.Time
}

// take says whether one more request may go at this rate, per second. A rate of 0 lets none go.
func (b *bucket) take(rate float64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	earned := rate * max(0, now.Sub(b.filled).Seconds())
	b.tokens = min(max(1, rate*saved.Seconds()), b.tokens+earned)
	b.filled = now
	if rate == 0 || b.tokens < 1 {
		b.refused = now
		return false
	}
	b.tokens--
	return true
}

// giveBack returns the token of a request that did not go after all.
func (b *bucket) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens++
}

// starved says that requests wait for its tokens.
func (b *bucket) starved(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Sub(b.refused) < starvedFor
}
