package datadir_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/datadir"
)

// broker opens a folder, and fails the test if it is refused.
func broker(t *testing.T, dir string) (*stream.Embedded, *kadm.Client, *kgo.Client) {
	t.Helper()
	e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	adm, client := clientOf(t, e)
	return e, adm, client
}

func clientOf(t *testing.T, e *stream.Embedded) (*kadm.Client, *kgo.Client) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.Addrs()...), kgo.TransactionalID("test"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	return kadm.NewClient(client), client
}

// folder is one with records in a topic that is deleted from and one that is compacted, of transactions that were committed
// and aborted, and with positions of a group. It is as after an orderly stop, or, killed, as while the broker still runs.
func folder(t *testing.T, killed bool) string {
	t.Helper()
	dir := t.TempDir()
	e, adm, client := broker(t, dir)
	compact := "compact"
	for name, configs := range map[string]map[string]*string{"log": nil, "state": {"cleanup.policy": &compact}} {
		if _, err := adm.CreateTopic(t.Context(), 2, 1, configs, name); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		transact(t, client, i, i%4 != 3)
	}
	commitTo(t, adm, 6)
	commitTo(t, adm, 10)
	if !killed {
		client.Close()
		e.Close()
		return dir
	}
	time.Sleep(1500 * time.Millisecond) // all of it is noted: there are new files
	copied := t.TempDir()
	copyOf(t, dir, copied)
	client.Close()
	e.Close()
	return copied
}

func transact(t *testing.T, client *kgo.Client, i int, commit bool) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"log", "state"} {
		for p := range int32(2) {
			r := &kgo.Record{Topic: topic, Partition: p, Key: fmt.Appendf(nil, "k%d", i%5), Value: fmt.Appendf(nil, "value %d, committed %v", i, commit)}
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
}

func commitTo(t *testing.T, adm *kadm.Client, offset int64) {
	t.Helper()
	var offsets kadm.Offsets
	for p := range int32(2) {
		offsets.AddOffset("log", p, offset, -1)
	}
	if err := adm.CommitAllOffsets(t.Context(), "group", offsets); err != nil {
		t.Fatal(err)
	}
}

// read is every committed value of a topic, in order.
func read(t *testing.T, e *stream.Embedded, topic string) []string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.Addrs()...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var values []string
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return values
		}
		for r := range fetches.RecordsAll() {
			values = append(values, fmt.Sprintf("%d %s", r.Partition, r.Value))
		}
	}
}

// position is where the group is in partition 0 of the log.
func position(t *testing.T, adm *kadm.Client) int64 {
	t.Helper()
	at, err := adm.FetchOffsets(t.Context(), "group")
	if err != nil {
		t.Fatal(err)
	}
	o, ok := at.Lookup("log", 0)
	if !ok {
		return -1
	}
	return o.At
}

func copyOf(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// prints are the checksums of all files.
func prints(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	sums := map[string]uint32{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sums[strings.TrimPrefix(path, dir+"/")] = crc32.ChecksumIEEE(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func check(t *testing.T, dir string) *datadir.Report {
	t.Helper()
	r, err := datadir.Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
