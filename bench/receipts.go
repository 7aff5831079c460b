package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/simulator"
)

// Receipts is when each delivery arrived at its provider. The zero value is ready; it is safe for concurrent use.
type Receipts struct {
	shards [64]struct {
		sync.Mutex
		at map[simulator.ID]time.Time // guarded
		_  [40]byte                   // a cache line each
	}
	count atomic.Int64
}

// Accepted notes a delivery: the first time counts.
func (r *Receipts) Accepted(id simulator.ID) {
	now := time.Now()
	s := &r.shards[id[15]%64]
	s.Lock()
	defer s.Unlock()
	if _, twice := s.at[id]; twice {
		return
	}
	if s.at == nil {
		s.at = map[simulator.ID]time.Time{}
	}
	s.at[id] = now
	r.count.Add(1)
}

// at is when a delivery arrived, if it has.
func (r *Receipts) at(id simulator.ID) (time.Time, bool) {
	s := &r.shards[id[15]%64]
	s.Lock()
	defer s.Unlock()
	at, ok := s.at[id]
	return at, ok
}

// forget drops all receipts.
func (r *Receipts) forget() {
	for i := range r.shards {
		s := &r.shards[i]
		s.Lock()
		clear(s.at)
		s.Unlock()
	}
	r.count.Store(0)
}

const (
	// lookEvery is how often it is looked whether something has arrived.
	lookEvery = 5 * time.Millisecond
	// lostAfter is how long a measurement waits for one more arrival before it fails.
	lostAfter = time.Minute
	// settle is how long nothing must arrive before the next half begins: longer than a lane's commit takes.
	settle = 500 * time.Millisecond
)

// wait returns the arrival of each delivery, in their order, once all have arrived.
func (r *Receipts) wait(ctx context.Context, ids []simulator.ID) ([]time.Time, error) {
	arrived := make([]time.Time, len(ids))
	last := time.Now()
	for i := 0; i < len(ids); {
		if at, ok := r.at(ids[i]); ok {
			arrived[i], last = at, time.Now()
			i++
			continue
		}
		if time.Since(last) > lostAfter {
			return nil, fmt.Errorf("%d of %d deliveries did not arrive within %v of the one before", len(ids)-i, len(ids), lostAfter)
		}
		if !pause(ctx, lookEvery) {
			return nil, ctx.Err()
		}
	}
	return arrived, nil
}

// flow waits until n deliveries of any kind have arrived since the last forget.
func (r *Receipts) flow(ctx context.Context, n int64) error {
	for began := time.Now(); r.count.Load() < n; {
		if time.Since(began) > lostAfter {
			return fmt.Errorf("only %d deliveries of a campaign arrived within %v", r.count.Load(), lostAfter)
		}
		if !pause(ctx, lookEvery) {
			return ctx.Err()
		}
	}
	return nil
}

// quiet waits until nothing has arrived for a while.
func (r *Receipts) quiet(ctx context.Context, while time.Duration) error {
	for n := int64(-1); r.count.Load() != n; {
		n = r.count.Load()
		if !pause(ctx, while) {
			return ctx.Err()
		}
	}
	return nil
}
