package fanout

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestMain lets this binary be a process of its own that runs a Fanout, for tests that kill it.
func TestMain(m *testing.M) {
	if brokers := os.Getenv("FANOUT_CHILD_KAFKA"); brokers != "" {
		child(strings.Split(brokers, ","))
	}
	os.Exit(m.Run())
}

func child(brokers []string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{os.Getenv("FANOUT_CHILD_REDIS")}})
	if err == nil {
		k := &stream.Kafka{Brokers: brokers, Prefix: os.Getenv("FANOUT_CHILD_PREFIX"), Instance: "child", Log: log}
		err = New(Options{Kafka: k, Registry: registry.New(r)}).Run(context.Background())
	}
	log.Error("child ended", "err", err)
	os.Exit(1)
}

// child starts a process that runs a Fanout.
func (w *world) child(redis string) *exec.Cmd {
	w.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Stderr = w.Output()
	cmd.Env = append(os.Environ(), "FANOUT_CHILD_KAFKA="+strings.Join(w.kafka.Brokers, ","),
		"FANOUT_CHILD_PREFIX="+w.kafka.Prefix, "FANOUT_CHILD_REDIS="+redis)
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	return cmd
}

// crashPace makes 30,000 devices take long enough to strike in their middle, until the pace is lifted.
const crashPace = 1500

func TestKilledExpanderExpandsEveryChunkOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a killed member's group waits 12 s for it")
	}
	w, server, c := crashWorld(t)
	for range 2 {
		cmd := w.child(server.Addr())
		before := w.counted()
		w.moreThan(before)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		if done := w.counted(); done <= before || done >= 3*256 {
			t.Fatalf("%d chunks were done after the kill, %d before: it did not strike in the middle", done, before)
		}
	}
	w.start("child")
	w.lift(c)
	for _, p := range schemas.Platforms {
		w.books(p, 256, 10_000)
	}
}

func TestRebalancesExpandEveryChunkOnce(t *testing.T) {
	w, _, c := crashWorld(t)
	w.start("a")
	for _, instance := range []string{"b", "c", "b"} {
		before := w.counted()
		stop := w.start(instance)
		w.moreThan(before)
		stop()
	}
	if done := w.counted(); done >= 3*256 {
		t.Error("all was done before the last rebalance")
	}
	w.lift(c)
	for _, p := range schemas.Platforms {
		w.books(p, 256, 10_000)
	}
}

// crashWorld has a paced campaign of 256 chunks a platform, and a Redis that other processes reach.
func crashWorld(t *testing.T) (*world, *miniredis.Miniredis, *pb.Campaign) {
	server := miniredis.RunT(t)
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	w := &world{TB: t, kafka: streamtest.Kafka(t), redis: r, registry: registrytest.Registry(t, r, devices("shop", 30_000)...)}
	c := definition()
	c.Pace = &pb.Pace{PerSecond: crashPace}
	return w, server, w.launchedAs(c, running, 16, schemas.Platforms...)
}

// lift ends a campaign's pace.
func (w *world) lift(c *pb.Campaign) {
	w.Helper()
	c.Pace = nil
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
}

// counted is how many chunks have been committed, over all platforms.
func (w *world) counted() (n int) {
	w.Helper()
	for _, p := range schemas.Platforms {
		for _, r := range w.all(schemas.TopicResults(p)) {
			n += len(batch(w, r.Value).Expanded)
		}
	}
	return n
}

// moreThan waits until more chunks have been committed.
func (w *world) moreThan(n int) {
	w.Helper()
	var topics []string
	for _, p := range schemas.Platforms {
		topics = append(topics, schemas.TopicResults(p))
	}
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		n -= len(batch(w, r.Value).Expanded)
		return n >= 0
	}, topics...)
}
