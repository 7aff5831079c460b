package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// outage tries again for all who wait on the same Redis, and says once that they do.
type outage struct {
	log *slog.Logger
	// waiting is how many have failed and not succeeded since.
	waiting atomic.Int32
}

// retry calls do until it succeeds. It fails only when ctx ends. That the view is not built is waited for as well, but
// is no outage: whoever rebuilds it says so.
func (o *outage) retry(ctx context.Context, do func() error) error {
	failed := false
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := do()
		if err == nil || ctx.Err() != nil {
			if failed && o.waiting.Add(-1) == 0 && err == nil {
				o.log.Info("the registry can use Redis again")
			}
			return ctx.Err()
		}
		if !failed && !errors.Is(err, ErrNotBuilt) {
			failed = true
			if o.waiting.Add(1) == 1 {
				o.log.Warn("the registry cannot use Redis; nothing is skipped, it tries until it can", "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
