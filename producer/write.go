package producer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"

	"github.com/belfry/belfry/stream"
)

const (
	// writeRoom bounds what single calls have on its way to Kafka, in bytes. Beyond it they are told to come again.
	writeRoom = 64 << 20
	// recordCost is what a record takes beside its key and value, about.
	recordCost = 512
	// deliveryTimeout is how long a record is tried before its call is refused.
	deliveryTimeout = 8 * time.Second
	// writeTimeout is for a record that may lie at a broker that does not answer: it cannot be given up, but its caller can.
	writeTimeout = 12 * time.Second
)

// errBusy says that writeRoom is taken.
var errBusy = errors.New("too much is on its way to Kafka")

// writer is the role's one Kafka producer: idempotent, and done only when all in-sync replicas have a record.
type writer struct {
	client *kgo.Client
	room   *semaphore.Weighted
	// failing tells whether the last record that came back was not written.
	failing atomic.Bool
}

func newWriter(k *stream.Kafka) (*writer, error) {
	client, err := k.Client(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// A single call waits for it; the batches of a bulk stream are larger for it, which saves the broker's time.
		kgo.ProducerLinger(5*time.Millisecond),
		// Failing a record says "not written" early, so that little is written after its caller gave up. Never a
		// deadline on the context of a produce: that may poison records behind it.
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		// What is buffered is bounded here, by room and by the bulk streams' windows, so that Produce never blocks.
		kgo.MaxBufferedRecords(1<<20),
	)
	if err != nil {
		return nil, err
	}
	return &writer{client: client, room: semaphore.NewWeighted(writeRoom)}, nil
}

// write returns once all records are on Kafka, or with the first error. After an error any of them may still be there.
func (w *writer) write(ctx context.Context, records ...*kgo.Record) error {
	var cost int64
	for _, r := range records {
		cost += int64(len(r.Key)+len(r.Value)) + recordCost
	}
	if !w.room.TryAcquire(cost) {
		return errBusy
	}
	done := make(chan error, 1)
	var mu sync.Mutex
	left, failed := len(records), error(nil)
	for _, r := range records {
		w.produce(r, func(r *kgo.Record, err error) {
			err = w.note(r, err)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
			}
			if left--; left == 0 {
				w.room.Release(cost)
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

// produce writes one record and calls back, in the order of a partition's records. done begins with note.
func (w *writer) produce(r *kgo.Record, done func(*kgo.Record, error)) {
	w.client.Produce(context.Background(), r, done)
}

// note remembers whether Kafka takes records, and names the topic of one that it did not take.
func (w *writer) note(r *kgo.Record, err error) error {
	if failed := err != nil; w.failing.Load() != failed {
		w.failing.Store(failed)
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", r.Topic, err)
	}
	return nil
}

// close gives what is buffered the time that a record has, and ends the client.
func (w *writer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	_ = w.client.Flush(ctx) // what was not written was not answered with success either
	w.client.Close()
}
