package senders

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Platform is all that sends to one platform in one process: its lanes with their retry hops, its provider's tokens, and its
// own view of the campaigns and of control, so that it shares nothing with another platform.
type Platform struct {
	// Timeout is how long one request may take. 0 means 10 s. It is set before Run.
	Timeout time.Duration

	kafka    *stream.Kafka
	provider Provider
	classes  []pb.Class
	runs     *Runs
	control  *control.View
}

// NewPlatform makes a platform's senders for some classes. They start with Run.
func NewPlatform(k *stream.Kafka, p Provider, classes []pb.Class) *Platform {
	return &Platform{kafka: k, provider: p, classes: classes, runs: NewRuns(k, p.Platform()), control: control.NewView(k)}
}

// Run sends until ctx is done, then waits for the answers that are out, and returns nil. Run it once.
func (s *Platform) Run(ctx context.Context) error {
	// What the lanes lean on outlives them: a drain still needs tokens.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	working, ctx := errgroup.WithContext(ctx)
	var support errgroup.Group
	lean := func(run func(context.Context) error) {
		failed := make(chan error, 1)
		support.Go(func() error {
			err := run(base)
			failed <- err
			return err
		})
		// Without it the lanes must stop.
		working.Go(func() error {
			select {
			case err := <-failed:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}
	lean(s.runs.Run)
	lean(s.control.Run)
	lean(s.provider.Run)
	rates := NewRates()
	for _, class := range s.classes {
		l := NewLane(Options{Kafka: s.kafka, Provider: s.provider, Class: class, Runs: s.runs, Control: s.control, Rates: rates, Timeout: s.Timeout})
		working.Go(func() error { return l.Run(ctx) })
		working.Go(func() error { return l.putOff.run(ctx) })
	}
	err := working.Wait()
	stop()
	if failed := support.Wait(); err == nil {
		err = failed
	}
	return err
}
