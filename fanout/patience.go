package fanout

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/stream"
)

const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
	// silence is how long a failure may last before it is worth a word: an election or a reconnection is not, and of a Kafka that
	// is away stream.Watch has told by then.
	silence = 15 * time.Second
)

// patience does what needs Redis or Kafka until it works, and says once that it does not, and once that it does again.
type patience struct {
	kafka   *stream.Kafka
	log     *slog.Logger
	failing atomic.Bool
}

// try returns nil once do has worked, or ctx's error when that is over.
func (p *patience) try(ctx context.Context, what string, do func() error) error {
	began := time.Now()
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := do()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if p.failing.CompareAndSwap(true, false) {
				p.log.Info("works again: " + what)
			}
			return nil
		}
		if p.kafka.Away() {
			began = time.Now()
		} else if time.Since(began) > silence && p.failing.CompareAndSwap(false, true) {
			p.log.Error("cannot "+what+", trying until it works", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
