package producer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
)

const (
	// writeRoom bounds what single calls have on its way to Kafka, in bytes, half of it for one app. Beyond it they wait for
	// writePatience, and are told to come again.
	writeRoom     = 64 << 20
	writePatience = time.Second
	// recordCost is what a record takes beside its key and value, about.
	recordCost = 512
	// deliveryTimeout is how long a record is tried before its call is refused.
	deliveryTimeout = 8 * time.Second
	// bulkLinger makes the batches of bulk streams larger, which saves the broker's time.
	bulkLinger = 5 * time.Millisecond
	// writeTimeout is for a record that may lie at a broker that does not answer: it cannot be given up, but its caller can.
	writeTimeout = 12 * time.Second
)

// newClient makes a Kafka producer whose records wait for others for as long as linger says. It is idempotent, and done with a
// record only when all in-sync replicas have it.
func newClient(k *stream.Kafka, linger time.Duration) (*kgo.Client, error) {
	return k.Client(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
		// Failing a record says "not written" early, so that little is written after its caller gave up. Never a
		// deadline on the context of a produce: that may poison records behind it.
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		// What is buffered is bounded by a writer's room and by the bulk streams' windows, so that Produce never blocks.
		kgo.MaxBufferedRecords(1<<20),
	)
}

// closeClient gives what is buffered the time that a record has, and ends the client.
func closeClient(c *kgo.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	_ = c.Flush(ctx) // what was not written was not answered with success either
	c.Close()
}

// unwritten names the topic of a record that Kafka did not take.
func unwritten(r *kgo.Record, err error) error {
	if err != nil {
		return fmt.Errorf("write to %s: %w", r.Topic, stream.Explain(err))
	}
	return nil
}

// writer writes what single calls wait for.
type writer struct {
	client *kgo.Client
	room   *share
}

// write returns once all records of an app are on Kafka, or with the first error. After an error but errBusy any of them may still
// be there.
func (w *writer) write(ctx context.Context, app string, records ...*kgo.Record) error {
	var cost int64
	for _, r := range records {
		cost += int64(len(r.Key)+len(r.Value)) + recordCost
	}
	room, err := w.room.take(ctx, app, cost)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	var mu sync.Mutex
	left, failed := len(records), error(nil)
	for _, r := range records {
		w.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			err = unwritten(r, err)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
			}
			if left--; left == 0 {
				room.release()
				done <- failed
			}
		})
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write to Kafka: %w", ctx.Err())
	}
}
