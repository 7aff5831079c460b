package stream_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestWatchSaysItOnce: an outage is one line, and its end another, and nobody else speaks of it: not the consumers, in the middle
// of their commits, nor the views. For as long as it lasts the process is not well.
func TestWatchSaysItOnce(t *testing.T) {
	t.Parallel()
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 4}, streamtest.Topic{Name: "out", Partitions: 3})
	var away atomic.Bool
	broker.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		return nil, errNoAnswer, away.Load() // closes the connection
	})
	var log lines
	watched := *k
	watched.Log = slog.New(slog.NewTextHandler(&log, nil))
	streamtest.Run(t, watched.Watch)
	streamtest.Run(t, stream.NewView(&watched, "out", func(stream.ViewRecord) {}).Run)
	for _, name := range []string{"one", "two"} {
		streamtest.Run(t, stream.NewConsumer(&watched, stream.Options{Name: name, Topics: []string{"in"}, Records: 64, Handle: copyLater}).Run)
	}
	fill(t, k, "in", 10*records)
	waitFor(t, func() bool { return watched.Health() == nil })
	away.Store(true)
	waitFor(t, func() bool { return log.count("Kafka does not answer") == 1 })
	if watched.Health() == nil {
		t.Error("Kafka is away, and all is well")
	}
	time.Sleep(15 * time.Second) // longer than whatever fails is silent
	away.Store(false)
	waitFor(t, func() bool { return log.count("Kafka answers again") == 1 })
	waitFor(t, func() bool { return watched.Health() == nil })
	if n := log.count("\n"); n != 2 {
		t.Errorf("an outage took %d lines:\n%s", n, log.String())
	}
}

// TestClusterOfANewerReleaseIsRefused, and one that nobody prepared is waited for.
func TestClusterOfANewerReleaseIsRefused(t *testing.T) {
	k := streamtest.Kafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := stream.CheckCluster(ctx, k); !errors.Is(err, stream.ErrNoCluster) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a cluster that nobody prepared: %v", err)
	}
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if err := stream.CheckCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	streamtest.Produce(t, k, clusterRecord(t, stream.ClusterSchema+1, schemas.Shards))
	if err := stream.CheckCluster(t.Context(), k); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Fatalf("a cluster of a newer release: %v", err)
	}
	if err := stream.MarkCluster(t.Context(), k); err == nil {
		t.Fatal("a newer cluster was marked as ours")
	}
	streamtest.Produce(t, k, clusterRecord(t, stream.ClusterSchema, schemas.Shards/2))
	if err := stream.CheckCluster(t.Context(), k); err == nil || !strings.Contains(err.Error(), "shards") {
		t.Fatalf("a cluster with other shards: %v", err)
	}
}

// lines is a log that counts.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count(s string) int { return strings.Count(l.String(), s) }

func clusterRecord(t *testing.T, schema, shards uint32) *kgo.Record {
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: &pb.ClusterConfig{Schema: schema, Shards: shards}}})
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: schemas.TopicControl, Key: []byte("cluster"), Value: value}
}
