package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/datadir"
	"github.com/belfry/belfry/stream/streamtest"
)

// said is a log that a test reads while it is written.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) count(word string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), word)
}

// A full disk is said once, costs readiness and nothing else, and all goes on by itself when there is room: what was
// acknowledged is there, once, and so is what waited.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := streamtest.SmallDisk(t, 24<<20)
	data, filler := filepath.Join(dir, "kafka"), filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &said{}
	e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: data, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	k := &stream.Kafka{Prefix: "t.", Instance: "disk", Log: streamtest.Log(t)}
	e.Attach(k)
	client := streamtest.Client(t, k, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DefaultProduceTopic(k.Topic("in")))
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, k.Topic("in")); err != nil {
		t.Fatal(err)
	}
	if err := k.Health(); err != nil {
		t.Fatalf("with room: %v", err)
	}
	written := 0
	write := func(ctx context.Context) error {
		err := client.ProduceSync(ctx, &kgo.Record{Value: fmt.Appendf(make([]byte, 100_000), "%06d", written)}).FirstErr()
		if err == nil {
			written++
		}
		return err
	}
	for k.Health() == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := write(ctx)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after %d records: %v", written, err)
		}
		if written > 100 {
			t.Fatal("the disk does not become full")
		}
	}
	if err := k.Health(); !strings.Contains(err.Error(), "disk of "+data+" is full") {
		t.Errorf("health: %v", err)
	}
	waiting := make(chan error)
	go func() { waiting <- write(t.Context()) }()
	select {
	case err := <-waiting:
		t.Fatalf("was written to a full disk: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := k.Health(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if n := log.count("level=ERROR"); n != 1 {
		t.Errorf("%d errors were said", n)
	}
	client.Close()
	e.Close()
	r, err := datadir.Check(data)
	if err != nil || r.Err() != nil || r.Stop != datadir.Orderly || r.Records < int64(written) {
		t.Fatalf("%d were written; %+v, %v", written, r, err)
	}
}
