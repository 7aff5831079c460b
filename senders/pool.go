package senders

import "sync"

// pool keeps what a lane's deliveries are carried in, for the next ones. It is taken from and given to in batches, under one
// lock for each, which sync.Pool cannot; and what it keeps is bounded.
type pool[T any] struct {
	most int

	mu   sync.Mutex
	free []*T
}

// take adds n of them to a slice, used ones as they were left.
func (p *pool[T]) take(to []*T, n int) []*T {
	p.mu.Lock()
	kept := max(0, len(p.free)-n)
	to = append(to, p.free[kept:]...)
	n -= len(p.free) - kept
	clear(p.free[kept:])
	p.free = p.free[:kept]
	p.mu.Unlock()
	for range n {
		to = append(to, new(T))
	}
	return to
}

// give takes them back. Nobody else may hold them.
func (p *pool[T]) give(items []*T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, items[:min(len(items), p.most-len(p.free))]...)
}
