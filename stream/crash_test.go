package stream_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestMain turns this binary into a process that can be killed: see TestKill.
func TestMain(m *testing.M) {
	switch dir := os.Getenv("STREAM_TEST_DIR"); {
	case os.Getenv("STREAM_TEST_OPEN") != "":
		if err := openTransaction(os.Getenv("STREAM_TEST_OPEN")); err != nil {
			slog.Error("worker", "err", err)
			os.Exit(1)
		}
		return
	case dir != "":
		embeddedWorker(dir)
		return
	case os.Getenv("STREAM_TEST_WORKER") != "":
		worker()
		return
	}
	os.Exit(m.Run())
}

// worker copies in to out, out of order and concurrently, until it is killed.
func worker() {
	k := &stream.Kafka{
		Brokers: strings.Split(os.Getenv("STREAM_TEST_BROKERS"), ","), Prefix: os.Getenv("STREAM_TEST_PREFIX"),
		Instance: os.Getenv("STREAM_TEST_WORKER"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Records: 256, Handle: copyLater})
	if err := c.Run(context.Background()); err != nil {
		slog.Error("worker", "err", err)
		os.Exit(1)
	}
}

// copyLater ends tasks in no order, some of them late.
func copyLater(ctx context.Context, tasks []*stream.Task) {
	for i, task := range tasks {
		select {
		case <-ctx.Done():
			stream.Release(tasks[i:])
			return
		case <-time.After(time.Duration(rand.IntN(200)) * time.Microsecond):
		}
		time.AfterFunc(time.Duration(rand.ExpFloat64()*float64(20*time.Millisecond)), func() {
			task.Done(stream.Output{Topic: "out", Key: task.Key, Value: task.Value})
		})
	}
}

// TestKill (I1, I2 of one consumer): processes are killed at random while work is in flight, and in the end every record
// has its output once in the committed view.
func TestKill(t *testing.T) {
	k := pipe(t)
	const n = 12_000
	fill(t, k, "in", n)
	start := func(name string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STREAM_TEST_WORKER="+name,
			"STREAM_TEST_BROKERS="+strings.Join(k.Brokers, ","), "STREAM_TEST_PREFIX="+k.Prefix)
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	workers := map[string]*exec.Cmd{"a": start("a"), "b": start("b")}
	defer func() {
		for _, w := range workers {
			kill(w)
		}
	}()
	adm := kadm.NewClient(streamtest.Client(t, k))
	struck := 0
	for range 6 {
		before := committed(t, adm, k)
		waitFor(t, func() bool { return committed(t, adm, k) > before+n/20 || committed(t, adm, k) >= n })
		if committed(t, adm, k) >= n {
			break
		}
		name := string("ab"[rand.IntN(2)])
		kill(workers[name])
		if committed(t, adm, k) < n {
			struck++
		}
		workers[name] = start(name)
	}
	if struck < 3 {
		t.Fatalf("only %d kills struck while work was left", struck)
	}
	readOnce(t, k, "out", n)
	t.Logf("%d kills while work was in flight", struck)
}

// committed sums the group's offsets: how far the work is, at least.
func committed(t *testing.T, adm *kadm.Client, k *stream.Kafka) (sum int64) {
	t.Helper()
	offsets, err := adm.FetchOffsets(t.Context(), k.Prefix+"copy")
	if err != nil {
		return 0 // the group does not exist yet
	}
	offsets.Each(func(o kadm.OffsetResponse) { sum += max(o.At, 0) })
	return sum
}

// waitFor polls for something that only the cluster knows, and fails the test after a minute.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("what the test waits for did not come within a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
