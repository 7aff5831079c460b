package stream_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const records = 3000

func fill(t testing.TB, k *stream.Kafka, topic string, n int) {
	t.Helper()
	batch := make([]*kgo.Record, n)
	for i := range batch {
		batch[i] = &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Append(nil, "value ", i)}
	}
	streamtest.Produce(t, k, batch...)
}

// readOnce reads the committed records of a topic until n distinct keys have come, and fails on a repeated one.
func readOnce(t testing.TB, k *stream.Kafka, topic string, n int) {
	t.Helper()
	seen := map[string]bool{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if seen[string(r.Key)] {
			t.Fatalf("%s has key %s twice", topic, r.Key)
		}
		seen[string(r.Key)] = true
		return len(seen) < n
	}, topic)
}

func pipe(t testing.TB) *stream.Kafka {
	return streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 4}, streamtest.Topic{Name: "out", Partitions: 3})
}

func TestEveryRecordEndsOnceWithItsOutput(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", records)
	c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Handle: func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			go task.Done(stream.Output{Topic: "out", Key: task.Key, Value: task.Value})
		}
	}})
	streamtest.Run(t, c.Run)
	readOnce(t, k, "out", records)
}
