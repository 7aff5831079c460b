package stream_test

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// remake deletes a topic and makes it again.
func remake(t *testing.T, k *stream.Kafka, topic string, partitions int32, compact bool) {
	t.Helper()
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.DeleteTopic(t.Context(), k.Topic(topic)); err != nil {
		t.Fatal(err)
	}
	policy := "delete"
	if compact {
		policy = "compact"
	}
	waitFor(t, func() bool { // a broker takes a while to forget the old one
		_, err := adm.CreateTopic(t.Context(), partitions, 1, map[string]*string{"cleanup.policy": &policy}, k.Topic(topic))
		return err == nil
	})
	waitFor(t, func() bool {
		there, err := adm.ListTopics(t.Context(), k.Topic(topic))
		return err == nil && there.Error() == nil
	})
}

// TestTopicMadeAgainIsReadFromItsStart, with positions beyond its new end, by a consumer that stays.
func TestTopicMadeAgainIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 1000)
	start(t, k, "a", copyLater)
	readOnce(t, k, "out", 1000)
	remake(t, k, "in", 1, false)
	streamtest.Produce(t, k, numbered("in", 1000, 1100)...)
	readOnce(t, k, "out", 1100)
	adm := kadm.NewClient(streamtest.Client(t, k))
	waitFor(t, func() bool {
		n, err := stream.Backlog(t.Context(), k, adm, "copy", "in")
		return err == nil && n == 0
	})
}

// TestOutputTopicMadeAgainIsWrittenTo by a consumer that has written to the one before, and by a client that stays.
func TestOutputTopicMadeAgainIsWrittenTo(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 100)
	start(t, k, "a", copyLater)
	readOnce(t, k, "out", 100)
	writer := streamtest.Client(t, k)
	if err := writer.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic("out"), Key: []byte("w")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	remake(t, k, "out", 1, false)
	streamtest.Produce(t, k, numbered("in", 100, 200)...)
	readOnce(t, k, "out", 100)
	var err error
	waitFor(t, func() bool {
		err = writer.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic("out"), Key: []byte("w")}).FirstErr()
		return err == nil
	})
}

// TestViewOfATopicMadeAgain shows what is on the new one, and says that it is not well while there is none.
func TestViewOfATopicMadeAgain(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t, streamtest.Topic{Name: "state", Partitions: 2, Compact: true})
	fill(t, k, "state", 300)
	var mu sync.Mutex
	seen := map[string]int{}
	v := stream.NewView(k, "state", func(r stream.ViewRecord) {
		mu.Lock()
		defer mu.Unlock()
		seen[string(r.Key)]++
	})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	streamtest.Run(t, v.Run)
	<-v.Ready()
	if n := count(); n != 300 || v.Health() != nil {
		t.Fatalf("%d seen, health %v", n, v.Health())
	}
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.DeleteTopic(t.Context(), k.Topic("state")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return k.Health() != nil })
	policy := "compact"
	waitFor(t, func() bool {
		_, err := adm.CreateTopic(t.Context(), 2, 1, map[string]*string{"cleanup.policy": &policy}, k.Topic("state"))
		return err == nil
	})
	streamtest.Produce(t, k, numbered("state", 300, 320)...)
	waitFor(t, func() bool { return count() == 320 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := v.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return k.Health() == nil })
}
