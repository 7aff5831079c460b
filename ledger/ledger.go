package ledger

import (
	"context"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
)

// Options are what a ledger works with.
type Options struct {
	Kafka *stream.Kafka
	Redis redis.UniversalClient
	// Prefix is before every key in Redis.
	Prefix string
	// AutoPause by app; one that is missing has the defaults.
	AutoPause map[string]AutoPause
}

// Ledger is the role: a consumer of results for each platform, and a follower of belfry.accounts that shows them. A
// platform's results never wait for another's, nor for Redis.
type Ledger struct {
	o Options
}

func New(o Options) *Ledger { return &Ledger{o} }

// Run keeps the books until ctx is done. Then it commits what it has counted and returns nil.
func (l *Ledger) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	written := newWritten(l.o.Kafka)
	group.Go(func() error { return written.view.Run(ctx) })
	restraints := control.NewView(l.o.Kafka)
	group.Go(func() error { return restraints.Run(ctx) })
	shown := (&show{l.o.Redis, l.o.Prefix, l.o.Kafka.Log}).view(ctx, l.o.Kafka)
	group.Go(func() error { return shown.Run(ctx) })
	for _, p := range schemas.Platforms {
		consumer := stream.NewConsumer(l.o.Kafka, stream.Options{
			Name:   "ledger." + schemas.PlatformName(p),
			Topics: []string{schemas.TopicResults(p)},
			Handle: newBooks(p, written, newGuard(p, l.o, restraints)).handle,
		})
		group.Go(func() error { return consumer.Run(ctx) })
	}
	return group.Wait()
}
