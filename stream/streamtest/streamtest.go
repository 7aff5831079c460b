// Package streamtest gives tests a Kafka: a real one where BELFRY_TEST_KAFKA names its brokers, else the embedded one.
// Each test has its own prefix, so tests run side by side on one cluster. The one function to know is Kafka.
package streamtest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
)

// Topic is one that a test wants instead of the plan's. Name is without prefix.
type Topic struct {
	Name       string
	Partitions int32
	Compact    bool
}

// Kafka returns a cluster for one test with the plan's topics, or with those named. What it made on a real cluster is
// removed when the test ends.
func Kafka(t testing.TB, topics ...Topic) *stream.Kafka {
	t.Helper()
	brokers := os.Getenv("BELFRY_TEST_KAFKA")
	if brokers == "" {
		k, _ := Embedded(t, topics...)
		return k
	}
	k := cluster(t, strings.Split(brokers, ","))
	t.Cleanup(func() { remove(t, k) })
	create(t, k, topics)
	return k
}

// Embedded is Kafka on the embedded broker in any case, with that broker, for tests that forge its answers.
func Embedded(t testing.TB, topics ...Topic) (*stream.Kafka, *kfake.Cluster) {
	t.Helper()
	e, err := stream.StartEmbedded("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	k := cluster(t, e.Addrs())
	create(t, k, topics)
	return k, e.Cluster()
}

func cluster(t testing.TB, brokers []string) *stream.Kafka {
	return &stream.Kafka{Brokers: brokers, Prefix: fmt.Sprintf("t%08x.", rand.Uint32()), Instance: "test", Log: Log(t)}
}

// OnReal reports whether tests run on a real Kafka.
func OnReal() bool { return os.Getenv("BELFRY_TEST_KAFKA") != "" }

// patience is how long a test waits for its topics to be made, or removed: a real broker makes those of all tests in turn,
// and beside others that write to its disk it takes minutes.
const patience = 5 * time.Minute

func create(t testing.TB, k *stream.Kafka, topics []Topic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if len(topics) == 0 {
		if _, err := stream.ApplyTopics(ctx, k); err != nil {
			t.Fatal(err)
		}
		if err := stream.WaitForTopics(ctx, k); err != nil {
			t.Fatal(err)
		}
		return
	}
	adm := kadm.NewClient(Client(t, k))
	for _, topic := range topics {
		policy := "delete"
		if topic.Compact {
			policy = "compact"
		}
		if _, err := adm.CreateTopic(ctx, topic.Partitions, 1, map[string]*string{"cleanup.policy": &policy}, k.Topic(topic.Name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range topics { // a real broker shows a new topic a moment later
		for {
			there, err := adm.ListTopics(ctx, k.Topic(topic.Name))
			if err == nil && there.Error() == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("topic %s does not show: %v", topic.Name, err)
			}
		}
	}
}

func remove(t testing.TB, k *stream.Kafka) {
	client, err := k.Client()
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	adm := kadm.NewClient(client)
	all, err := adm.ListTopics(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	var mine []string
	for name := range all {
		if strings.HasPrefix(name, k.Prefix) {
			mine = append(mine, name)
		}
	}
	if _, err := adm.DeleteTopics(ctx, mine...); err != nil {
		t.Error(err)
	}
}

// Client is a client that is closed when the test ends.
func Client(t testing.TB, k *stream.Kafka, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := k.Client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Log shows warnings with the test's own output, and everything with BELFRY_TEST_LOG=debug.
func Log(t testing.TB) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("BELFRY_TEST_LOG") == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// Produce writes records to topics named without prefix and waits until they are acknowledged.
func Produce(t testing.TB, k *stream.Kafka, records ...*kgo.Record) {
	t.Helper()
	client := Client(t, k)
	for _, r := range records {
		r.Topic = k.Topic(r.Topic)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// Read calls yield with the committed records of topics, from their beginning, until it returns false or the test ends.
func Read(t testing.TB, k *stream.Kafka, yield func(*kgo.Record) bool, topics ...string) {
	t.Helper()
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = k.Topic(topic)
	}
	client := Client(t, k, kgo.ConsumeTopics(names...), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("reading %v: what the test waits for did not come", topics)
		}
		for r := range fetches.RecordsAll() {
			if !yield(r) {
				return
			}
		}
	}
}

// Run runs a role until the test ends, and waits for it.
func Run(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("run did not end within 30 s of its context")
		}
	})
}
