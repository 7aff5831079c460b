package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestEmbeddedRefusesASecondProcess(t *testing.T) {
	dir := t.TempDir()
	e, err := stream.StartEmbedded(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.StartEmbedded(dir); err == nil || !strings.Contains(err.Error(), "in use by another belfry") {
		t.Fatalf("a second broker in the same folder: %v", err)
	}
	e.Close()
	if e, err = stream.StartEmbedded(dir); err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	e.Close()
}

// TestKillEmbedded: broker and consumer die together in the middle of the work, again and again, and in the end every
// record has its output once.
func TestKillEmbedded(t *testing.T) {
	dir := t.TempDir()
	const n = 12_000
	prepare := func() (*stream.Embedded, *stream.Kafka) {
		e, err := stream.StartEmbedded(dir)
		if err != nil {
			t.Fatal(err)
		}
		return e, &stream.Kafka{Brokers: e.Addrs(), Prefix: "t.", Instance: "test", Log: streamtest.Log(t)}
	}
	e, k := prepare()
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.CreateTopics(t.Context(), 4, 1, nil, k.Topic("in"), k.Topic("out")); err != nil {
		t.Fatal(err)
	}
	fill(t, k, "in", n)
	e.Close()
	struck := 0
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STREAM_TEST_WORKER=a", "STREAM_TEST_DIR="+dir, "STREAM_TEST_PREFIX=t.")
		cmd.Stderr = t.Output()
		progress, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The worker writes a byte for each task it ends: kill it after so many.
		var buf [1]byte
		for i := 0; i < n/8; i++ {
			if _, err := progress.Read(buf[:]); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		struck++
	}
	e, k = prepare()
	defer e.Close()
	streamtest.Run(t, stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Handle: func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	}}).Run)
	readOnce(t, k, "out", n)
	t.Logf("%d kills while work was in flight", struck)
}

// TestKillWithAnOpenTransaction: what an open transaction had written when the broker was killed is nowhere, and nobody
// waits for it, though no marker lies behind it.
func TestKillWithAnOpenTransaction(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STREAM_TEST_OPEN="+dir)
	cmd.Stderr = t.Output()
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	e, err := stream.StartEmbedded(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	k := &stream.Kafka{Brokers: e.Addrs(), Prefix: "t.", Instance: "test", Log: streamtest.Log(t)}
	var seen []string
	v := stream.NewView(k, "state", func(r stream.ViewRecord) { seen = append(seen, string(r.Key)) })
	streamtest.Run(t, v.Run)
	if err := v.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []string{"committed"}) {
		t.Fatalf("the view has %v", seen)
	}
}

// openTransaction is the process that TestKillWithAnOpenTransaction kills.
func openTransaction(dir string) error {
	e, err := stream.StartEmbedded(dir)
	if err != nil {
		return err
	}
	k := &stream.Kafka{Brokers: e.Addrs(), Prefix: "t.", Instance: "a", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	client, err := k.Client(kgo.TransactionalID("open"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, k.Topic("state")); err != nil {
		return err
	}
	for _, key := range []string{"committed", "open"} {
		if err := client.BeginTransaction(); err != nil {
			return err
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: k.Topic("state"), Key: []byte(key)}).FirstErr(); err != nil {
			return err
		}
		if key == "open" {
			break
		}
		if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return err
		}
	}
	os.Stdout.Write([]byte{'.'})
	select {} // until it is killed
}

// embeddedWorker is the process that TestKillEmbedded kills: broker and consumer in one.
func embeddedWorker(dir string) {
	e, err := stream.StartEmbedded(dir)
	if err != nil {
		slog.Error("worker", "err", err)
		os.Exit(1)
	}
	k := &stream.Kafka{Brokers: e.Addrs(), Prefix: os.Getenv("STREAM_TEST_PREFIX"), Instance: "a", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Records: 256, Handle: func(ctx context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			os.Stdout.Write([]byte{'.'})
			task.Done(copyOf(task))
		}
	}})
	if err := c.Run(context.Background()); err != nil {
		os.Exit(1)
	}
}

// TestFullFetchTellsWhatWasAborted: what was aborted is not read, however small the fetches that it comes in are.
func TestFullFetchTellsWhatWasAborted(t *testing.T) {
	k, _ := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1})
	client := streamtest.Client(t, k, kgo.TransactionalID("aborts"), kgo.DefaultProduceTopic(k.Topic("in")),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := make([]byte, 10_000)
	for _, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range 5 { // a batch each
			if err := client.ProduceSync(t.Context(), &kgo.Record{Key: fmt.Append(nil, end), Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	reader := streamtest.Client(t, k, kgo.ConsumeTopics(k.Topic("in")), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(25_000))
	for n := 0; n < 5; {
		for r := range reader.PollFetches(t.Context()).RecordsAll() {
			if n++; string(r.Key) != fmt.Sprint(kgo.TryCommit) {
				t.Fatal("a record is read that was aborted")
			}
		}
	}
}
