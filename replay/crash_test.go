package replay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/replay"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestMain turns this binary into a process that can be killed: see TestKilledReplaysGoOn.
func TestMain(m *testing.M) {
	if os.Getenv("REPLAY_TEST_BROKERS") == "" {
		os.Exit(m.Run())
	}
	k := &stream.Kafka{
		Brokers: strings.Split(os.Getenv("REPLAY_TEST_BROKERS"), ","), Prefix: os.Getenv("REPLAY_TEST_PREFIX"),
		Instance: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := replay.New(k).Run(context.Background()); err != nil {
		slog.Error("replay", "err", err)
		os.Exit(1)
	}
}

func process(t *testing.T, w *world, armed string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BELFRY_FAILPOINT="+armed,
		"REPLAY_TEST_BROKERS="+strings.Join(w.k.Brokers, ","), "REPLAY_TEST_PREFIX="+w.k.Prefix)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// The same of past deliveries, whose replay is resumed by reading again how they ended.
func TestKilledReplaysOfSendTopicsGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 100
	var batch []byte
	var records []*kgo.Record
	for i := range n {
		d := delivery("c", fmt.Sprint("d", i))
		records = append(records, record(t, schemas.TopicSend(fcm, bulk), schemas.DeviceKey(d.App, d.Device), d))
		batch = schemas.AppendResult(batch, &pb.Result{Delivery: d.Id, Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: time.Now().UnixMilli()})
	}
	records = append(records, &kgo.Record{Topic: schemas.TopicResults(fcm), Key: []byte("shop/c"), Value: batch})
	streamtest.Produce(t, w.k, records...)
	w.want(&pb.Replay{
		Id: "r", App: "shop", Source: pb.ReplaySource_REPLAY_SOURCE_SEND, IncludeAccepted: true, Rate: 100,
		Wish: pb.ReplayWish_REPLAY_WISH_RUN, Filter: &pb.ReplayFilter{Since: time.Now().Add(-time.Hour).UnixMilli()},
	})
	w.first(&pb.Replay{Id: "r", App: "shop"}, fcm)
	for _, point := range []string{failpoint.ReplayCheckpoint, failpoint.AfterCommit} {
		var exit *exec.ExitError
		if err := process(t, w, point+":2").Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s did not strike: %v", point, err)
		}
	}
	next := process(t, w, "")
	p := w.one("r")
	_ = next.Process.Kill()
	_ = next.Wait()
	if p.State != pb.ReplayState_REPLAY_STATE_FINISHED || p.Sent != n {
		t.Errorf("%v", p)
	}
	again := 0
	for _, ds := range w.sent(fcm, bulk) {
		if ds[0].Replay == "r" {
			again++
		}
		if len(ds) != 1 {
			t.Errorf("%s was sent %d times", ds[0].Device, len(ds))
		}
	}
	if books := w.replayed(fcm)["shop/c"]; again != n || books.GetPlanned() != n {
		t.Errorf("%d were sent again, and the account is told %v", again, books)
	}
}

// A second process takes over in the middle, and the first one leaves: what the one has sent the other does not.
func TestReplaysMoveToAnotherProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 300
	var all []*pb.DeadLetter
	for i := range n {
		all = append(all, letter(delivery("c", fmt.Sprint("d", i))))
	}
	w.bury(fcm, all...)
	first, second := *w.k, *w.k
	first.Instance, second.Instance = "first", "second"
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- replay.New(&first).Run(ctx) }()
	w.ask(&pb.Replay{Id: "r", Rate: 100})
	streamtest.Read(t, w.k, func(*kgo.Record) bool { return false }, schemas.TopicSend(fcm, bulk))
	streamtest.Run(t, replay.New(&second).Run)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if p := w.one("r"); p.Sent != n || p.Replayed != 0 {
		t.Errorf("%v", p)
	}
	for _, ds := range w.sent(fcm, bulk) {
		if len(ds) != 1 {
			t.Errorf("%s was sent %d times", ds[0].Device, len(ds))
		}
	}
}

// I11: a replay whose process is killed, before, within and after the transaction of a step, goes on and sends each once.
func TestKilledReplaysGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 200
	points := []string{
		failpoint.ReplayCheckpoint, failpoint.BeforeCommit, failpoint.Produced, failpoint.Offsets, failpoint.AfterCommit,
	}
	for _, point := range points {
		var all []*pb.DeadLetter
		for i := range n {
			all = append(all, letter(delivery(point, fmt.Sprint("d", i))))
		}
		w.bury(fcm, all...)
		w.want(&pb.Replay{
			Id: point, App: "shop", Source: pb.ReplaySource_REPLAY_SOURCE_DEAD, Rate: 200, Wish: pb.ReplayWish_REPLAY_WISH_RUN,
			Filter: &pb.ReplayFilter{Runs: []string{point}},
		})
		w.first(&pb.Replay{Id: point, App: "shop"}, fcm)
		var exit *exec.ExitError
		// The first is the step that only looks, the second one sends.
		if err := process(t, w, point+":2").Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s did not strike: %v", point, err)
		}
		next := process(t, w, "")
		p := w.one(point)
		_ = next.Process.Kill()
		_ = next.Wait()
		if p.State != pb.ReplayState_REPLAY_STATE_FINISHED || p.Sent != n || p.Replayed != 0 {
			t.Errorf("%s: %v", point, p)
		}
		if told := w.replayed(fcm)["shop/"+point].GetDead(); told != n {
			t.Errorf("%s: the account is told of %d", point, told)
		}
	}
	sent := w.sent(fcm, bulk)
	for _, ds := range sent {
		if len(ds) != 1 {
			t.Errorf("%s of %s was sent %d times", ds[0].Device, ds[0].Run, len(ds))
		}
	}
	if len(sent) != n*len(points) {
		t.Errorf("%d were sent, want %d", len(sent), n*len(points))
	}
}
