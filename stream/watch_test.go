package stream_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestWatchSaysItOnce: an outage is one line, and its end another, and nobody else speaks of it.
func TestWatchSaysItOnce(t *testing.T) {
	k, _ := streamtest.Embedded(t)
	gate := newGate(t, k.Brokers[0])
	var log lines
	watched := *k
	watched.Brokers, watched.Log = []string{gate.addr}, slog.New(slog.NewTextHandler(&log, nil))
	streamtest.Run(t, watched.Watch)
	gate.shut()
	waitFor(t, func() bool { return log.count("Kafka does not answer") == 1 })
	gate.open(t)
	waitFor(t, func() bool { return log.count("Kafka answers again") == 1 })
	if n := log.count("\n"); n != 2 {
		t.Errorf("an outage took %d lines:\n%s", n, log.String())
	}
}

// TestClusterOfANewerReleaseIsRefused, and so is one that nobody prepared.
func TestClusterOfANewerReleaseIsRefused(t *testing.T) {
	k := streamtest.Kafka(t)
	if err := stream.CheckCluster(t.Context(), k); !errors.Is(err, stream.ErrNoCluster) {
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

// gate is a port in front of a broker that can be shut.
type gate struct {
	addr, to string
	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newGate(t *testing.T, to string) *gate {
	g := &gate{addr: "127.0.0.1:0", to: to}
	g.open(t)
	t.Cleanup(g.shut)
	return g
}

func (g *gate) open(t *testing.T) {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.listener, g.addr = l, l.Addr().String()
	g.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", g.to)
			if err != nil {
				in.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, in, out)
			g.mu.Unlock()
			go func() { _, _ = io.Copy(out, in) }()
			go func() { _, _ = io.Copy(in, out) }()
		}
	}()
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener.Close()
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

func clusterRecord(t *testing.T, schema, shards uint32) *kgo.Record {
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: &pb.ClusterConfig{Schema: schema, Shards: shards}}})
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: schemas.TopicControl, Key: []byte("cluster"), Value: value}
}
