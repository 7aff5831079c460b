package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// abort writes records in a transaction that it aborts.
func abort(t testing.TB, k *stream.Kafka, records ...*kgo.Record) {
	t.Helper()
	client := streamtest.Client(t, k, kgo.TransactionalID(k.Topic("aborts")))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		r.Topic = k.Topic(r.Topic)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

// TestMeterCountsWhatIsThere: a lane that stands still, with records of aborted transactions before, between and behind those
// that count. By offsets alone a gate over it would be shut for ever.
func TestMeterCountsWhatIsThere(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 2})
	const aborted = 20_000
	abort(t, k, numbered("in", 0, aborted)...)
	streamtest.Produce(t, k, numbered("in", 0, 30)...)
	abort(t, k, numbered("in", 0, aborted)...)
	streamtest.Produce(t, k, numbered("in", 30, 50)...)
	abort(t, k, numbered("in", 0, aborted)...)
	client := streamtest.Client(t, k)
	if n, err := stream.Backlog(t.Context(), k, kadm.NewClient(client), "copy", "in"); err != nil || n < 3*aborted {
		t.Fatalf("nothing was aborted: %d offsets, %v", n, err)
	}
	meter := stream.NewMeter(k, client, "copy", "in")
	read := func() stream.Reading {
		r, err := meter.Read(t.Context())
		if err != nil || r.Inexact != nil {
			t.Fatal(err, r.Inexact)
		}
		return r
	}
	waitFor(t, func() bool { return read().Backlog == 50 })
	if r := read(); r.Void < 3*aborted {
		t.Fatalf("%d offsets hold nothing, of %d and markers", r.Void, 3*aborted)
	}
	streamtest.Produce(t, k, numbered("in", 50, 57)...)
	waitFor(t, func() bool { return read().Backlog == 57 })

	// One that does part of it, out of order.
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for i, task := range tasks {
			if string(task.Key) == "40" {
				stream.Release(tasks[i : i+1])
				continue
			}
			task.Done()
		}
	})
	waitFor(t, func() bool { return read().Backlog == 1 })
	stop()
	if n := read().Backlog; n != 1 {
		t.Fatalf("with one record left, the backlog is %d", n)
	}
}

// TestGroupPassesWhatIsAborted: a group does not stand before aborted records and markers for ever.
func TestGroupPassesWhatIsAborted(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1})
	streamtest.Produce(t, k, numbered("in", 0, 10)...)
	start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done()
		}
	})
	adm := kadm.NewClient(streamtest.Client(t, k))
	left := func() int64 {
		n, err := stream.Backlog(t.Context(), k, adm, "copy", "in")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	waitFor(t, func() bool { return left() == 0 })
	abort(t, k, numbered("in", 0, 5000)...)
	began := time.Now()
	waitFor(t, func() bool { return left() == 0 })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
}
