package stream_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestKilledBrokersTransactionEnds (I1): the embedded broker is killed with a transaction open. What its producer commits
// after the restart is read, and what was open is not.
func TestKilledBrokersTransactionEnds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "before")
	e, err := stream.StartEmbedded(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	k := &stream.Kafka{Brokers: e.Addrs(), Prefix: "t.", Instance: "a", Log: streamtest.Log(t)}
	write := func(k *stream.Kafka, commit bool, keys ...string) {
		t.Helper()
		client := streamtest.Client(t, k, kgo.TransactionalID("t"))
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			r := &kgo.Record{Topic: k.Topic("out"), Key: []byte(key), Value: []byte(key)}
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if !commit {
			return
		}
		if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kadm.NewClient(streamtest.Client(t, k)).CreateTopics(t.Context(), 1, 1, nil, k.Topic("out")); err != nil {
		t.Fatal(err)
	}
	write(k, true, "committed")
	write(k, false, "open 1", "open 2")

	killed := filepath.Join(t.TempDir(), "after")
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for n := range 2 { // the second start is one after a stop in good order
		again, err := stream.StartEmbedded(killed)
		if err != nil {
			t.Fatal(err)
		}
		k := &stream.Kafka{Brokers: again.Addrs(), Prefix: "t.", Instance: "a", Log: streamtest.Log(t)}
		if n == 0 {
			write(k, true, "after the restart", "last")
		}
		var got []string
		streamtest.Read(t, k, func(r *kgo.Record) bool {
			got = append(got, string(r.Key))
			return string(r.Key) != "last"
		}, "out")
		if len(got) != 3 || got[0] != "committed" || got[1] != "after the restart" {
			t.Errorf("start %d: read %q", n, got)
		}
		again.Close()
	}
}
