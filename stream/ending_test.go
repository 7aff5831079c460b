package stream

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The embedded broker ends a transaction piece by piece. Wherever a kill cuts that, the next start has all of it or nothing: each record
// of it, and the position that was committed with them.
func TestACommitThatAKillCutsInTwoIsMadeWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	commitCopied(t, filepath.Join(dir, "broker"), before, after)
	const groups, out = "groups.log", "partitions/out-"
	for name, c := range map[string]struct {
		made []string // the pieces that were made
		want int
	}{
		"nothing":                 {nil, 0},
		"one marker":              {[]string{out + "1"}, 1},
		"all markers":             {[]string{out + "0", out + "1", out + "2"}, 1},
		"and the positions":       {[]string{out + "0", out + "1", out + "2", groups}, 1},
		"the positions and a few": {[]string{out + "2", groups}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			torn := filepath.Join(t.TempDir(), "torn")
			if err := os.CopyFS(torn, os.DirFS(before)); err != nil {
				t.Fatal(err)
			}
			for _, piece := range c.made {
				if err := os.RemoveAll(filepath.Join(torn, piece)); err != nil {
					t.Fatal(err)
				}
				copyPiece(t, filepath.Join(after, piece), filepath.Join(torn, piece))
			}
			for range 2 { // the second start is one after a stop in good order
				records, position := committedIn(t, torn)
				if records != 3*c.want || position != int64(c.want) {
					t.Errorf("%d of 3 records stand, and the group is at %d: it is all or nothing, and here %d", records, position, c.want)
				}
			}
		})
	}
}

// commitCopied commits three records and a position with a broker, whose folder it copies right before the first piece of that is made and
// after the last.
func commitCopied(t *testing.T, dir, before, after string) {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	client := newClient(t, e.Addrs(), kgo.ConsumeTopics("in"), kgo.ConsumerGroup("g"), kgo.TransactionalID("t"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(client)
	for topic, partitions := range map[string]int32{"in": 1, "out": 3} {
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	plain := newClient(t, e.Addrs())
	if err := plain.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: []byte("in")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
		return nil, nil, false
	})
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if n := client.PollFetches(t.Context()).NumRecords(); n != 1 {
		t.Fatalf("%d records", n)
	}
	for p := range int32(3) {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "out", Partition: p, Value: []byte("out")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	id, epoch, err := client.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	group, generation := client.GroupMetadata()
	offsets := kmsg.NewPtrTxnOffsetCommitRequest()
	offsets.TransactionalID, offsets.Group, offsets.ProducerID, offsets.ProducerEpoch = "t", "g", id, epoch
	offsets.MemberID, offsets.Generation = group, generation
	meta := "word"
	offsets.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "in", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 1, LeaderEpoch: -1, Metadata: &meta}}}}
	if resp, err := offsets.RequestWith(t.Context(), client); err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(resp, err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func copyPiece(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else {
		var b []byte
		if b, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// committedIn starts a broker in a folder, and counts the records that were committed there and how far the group is.
func committedIn(t *testing.T, dir string) (records int, position int64) {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	client := newClient(t, e.Addrs(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeTopics("out"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	adm := kadm.NewClient(client)
	ends, err := adm.ListEndOffsets(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	left := map[tp]int64{}
	ends.Each(func(o kadm.ListedOffset) { left[tp{o.Topic, o.Partition}] = o.Offset })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	readTo(ctx, client, left, func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			records++
		}
	})
	at, err := adm.FetchOffsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := at.Lookup("in", 0); ok {
		position = o.At
		if o.Metadata != "word" {
			t.Errorf("the position's word is %q", o.Metadata)
		}
	}
	return records, position
}
