package stream

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Repeated is what a process writes to Kafka again and again, each time whole, so that one that is lost is no loss: it shows in the
// age of the last. It is said once that Kafka does not take it, and once when it does again. It is safe for concurrent use.
type Repeated struct {
	// Fails and Works are what is said, Fails at Level.
	Fails, Works string
	Level        slog.Level
	// After is how many in a row are not taken before it is said: an election takes some.
	After int64

	refused atomic.Int64 // in a row
}

// Wrote is the promise of one that is written to k.
func (r *Repeated) Wrote(k *Kafka, log *slog.Logger) func(*kgo.Record, error) {
	return func(_ *kgo.Record, err error) {
		switch {
		case err == nil:
			if r.refused.Swap(0) >= r.After {
				log.Info(r.Works)
			}
		case errors.Is(err, context.Canceled) || k.Away(): // of that Watch tells
		case r.refused.Add(1) == r.After:
			log.Log(context.Background(), r.Level, r.Fails, "err", Explain(err))
		}
	}
}

// Write puts records on Kafka by a client of its own, for what is written once in a while. It gives up when ctx ends: see GiveUp.
func (k *Kafka) Write(ctx context.Context, records ...*kgo.Record) error {
	client, err := k.Client(GiveUp())
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, records...).FirstErr()
}
