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

// inParts has do make all changes, each try as retry does. What follows a failure is half as much, and twice as much what
// follows a success: a Redis that is too slow for all of it at once would else be asked for just that again and again, and be
// at work for answers that nobody waits for any more.
func (o *outage) inParts(ctx context.Context, changes []Change, do func([]Change) error) error {
	for n := len(changes); len(changes) > 0; n *= 2 {
		n = min(n, len(changes))
		err := o.retry(ctx, func() error {
			err := do(changes[:n])
			if err != nil {
				n = (n + 1) / 2
			}
			return err
		})
		if err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}
