package ledger

import (
	"context"
	"log/slog"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func account(run string, p pb.Platform, accepted uint64) *pb.Account {
	return &pb.Account{App: app, Run: run, Platform: p, Planned: accepted, Accepted: accepted}
}

// A follower that starts over reads the old accounts again, while another already shows the new ones.
func TestAnOlderAccountNeverReplacesANewer(t *testing.T) {
	registrytest.Each(t, testNewerWins)
}

func testNewerWins(t *testing.T, rdb *registry.Redis) {
	s := &show{rdb, rdb.Prefix, streamtest.Log(t)}
	for _, step := range []struct {
		partition int32
		offset    int64
		accepted  uint64
		want      uint64
	}{
		{2, 9, 1, 1},
		{2, 10, 2, 2},
		{2, 9, 1, 2},
		{2, 10, 5, 2},
		{2, 1 << 40, 7, 7},
		{2, 11, 3, 7},
		{5, 3, 8, 8},
		{5, 2, 6, 8},
		{5, 4, 9, 9}, // belfry topics repair has brought it there
	} {
		s.apply(t.Context(), stream.ViewRecord{Partition: step.partition, Offset: step.offset, Value: encode(account("run", pb.Platform_PLATFORM_FCM, step.accepted))})
		got, err := Read(t.Context(), rdb, rdb.Prefix, app, "run")
		if err != nil {
			t.Fatal(err)
		}
		want := []*pb.Account{account("run", pb.Platform_PLATFORM_FCM, step.want)}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("after partition %d, offset %d (-want +got):\n%s", step.partition, step.offset, diff)
		}
	}
}

func TestReadOfAnUnknownRunIsEmpty(t *testing.T) {
	rdb := registrytest.Redis(t)
	accounts, err := Read(t.Context(), rdb, rdb.Prefix, app, "nobody")
	if err != nil || len(accounts) != 0 {
		t.Errorf("got %v, %v", accounts, err)
	}
}

// said passes a log's messages on.
type said chan string

func (s said) Enabled(context.Context, slog.Level) bool { return true }
func (s said) Handle(_ context.Context, r slog.Record) error {
	s <- r.Message
	return nil
}
func (s said) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s said) WithGroup(string) slog.Handler      { return s }

func TestShowWaitsForRedisAndCatchesUp(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: schemas.TopicAccounts, Partitions: 1, Compact: true})
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { rdb.Close() })
	server.SetError("LOADING Redis is loading the dataset in memory")

	const p = pb.Platform_PLATFORM_APNS
	for i := range 3 {
		a := account("run", p, uint64(i))
		streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicAccounts, Key: accountKey(app, "run", p), Value: encode(a)})
	}
	log := make(said, 16)
	ctx, cancel := context.WithCancel(t.Context())
	view := (&show{rdb, "p:", slog.New(log)}).view(ctx, k)
	done := make(chan error, 1)
	go func() { done <- view.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	<-log // it has met the fault
	server.SetError("")
	if err := view.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := Read(ctx, rdb, "p:", app, "run")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]*pb.Account{account("run", p, 2)}, got, protocmp.Transform()); diff != "" {
		t.Errorf("Redis shows (-want +got):\n%s", diff)
	}
	if n := len(log); n != 1 {
		t.Errorf("it spoke %d more times; want one, that Redis answers again", n)
	}
}
