package stream_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// raise gives a topic more partitions, and waits until that shows.
func raise(t *testing.T, k *stream.Kafka, topic string, n int) {
	t.Helper()
	adm := kadm.NewClient(streamtest.Client(t, k))
	resp, err := adm.UpdatePartitions(t.Context(), n, k.Topic(topic))
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		there, err := adm.ListTopics(t.Context(), k.Topic(topic))
		return err == nil && len(there[k.Topic(topic)].Partitions) == n
	})
}

// TestAddedPartitionsAreConsumed: where an operator may add some, running consumers have their records without a restart, and
// before the client by itself would ask, which is every 5 min.
func TestAddedPartitionsAreConsumed(t *testing.T) {
	t.Parallel()
	k := pipe(t)
	fill(t, k, "in", 100)
	start(t, k, "a", copyLater)
	readOnce(t, k, "out", 100)
	raise(t, k, "in", 6)
	manual := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 100 {
		r := &kgo.Record{Topic: k.Topic("in"), Partition: int32(4 + i%2), Key: fmt.Append(nil, 100+i)}
		if err := manual.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	readOnce(t, k, "out", 200)
}
