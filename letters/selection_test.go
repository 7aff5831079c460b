package letters

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const fcm = pb.Platform_PLATFORM_FCM

func past(r *pb.Replay) *pb.Replay {
	r.App, r.Source, r.IncludeAccepted = "shop", pb.ReplaySource_REPLAY_SOURCE_SEND, true
	return r
}

func TestMoreDeliveriesThanFitAreRefused(t *testing.T) {
	defer func(n int) { maxDeliveries = n }(maxDeliveries)
	maxDeliveries = 3
	k := streamtest.Kafka(t)
	var batch []byte
	for i := range 4 {
		id := schemas.DeliveryID("shop", "c", fmt.Sprint(i), 0)
		batch = schemas.AppendResult(batch, &pb.Result{Delivery: id[:], Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: 1})
	}
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicResults(fcm), Key: []byte("shop/c"), Value: batch})
	r := past(&pb.Replay{})
	from, err := Begin(t.Context(), k, r, fcm, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Select(t.Context(), k, r, fcm, from, NewHistory(), time.Now); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	full := NewHistory()
	for i := range byte(3) {
		full.Take(&Found{Original: []byte{15: i}})
	}
	if _, err := Select(t.Context(), k, r, fcm, from, full, time.Now); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	other := past(&pb.Replay{Filter: &pb.ReplayFilter{Runs: []string{"d"}}})
	s, err := Select(t.Context(), k, other, fcm, from, NewHistory(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Done() {
		t.Error("there is nothing of the campaign, and the send topics would be read for it")
	}
}

// A transaction that is open when a range is taken is waited for, and what is aborted is not read.
func TestOpenTransactionsAreWaitedFor(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1})
	writer := streamtest.Client(t, k, kgo.TransactionalID(k.Prefix+"w"))
	write := func(value string) {
		t.Helper()
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := writer.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic("in"), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	end := func(how kgo.TransactionEndTry) {
		t.Helper()
		if err := writer.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	for _, last := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		write("a")
		end(kgo.TryCommit)
		write("b")
		ranges := span(t, k)
		end(last)
		write("after")
		end(kgo.TryCommit)
		var got []string
		if err := Scan(t.Context(), k, ranges, func(r *kgo.Record) bool {
			got = append(got, string(r.Value))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want := "[a b]"
		if last == kgo.TryAbort {
			want = "[a b after a]"
		}
		if fmt.Sprint(got) != want {
			t.Errorf("read %v, want %s", got, want)
		}
	}
}

func span(t *testing.T, k *stream.Kafka) []*pb.TopicRange {
	t.Helper()
	ranges, err := Span(t.Context(), k, 0, "in")
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

// What retention removed while a replay was paused cannot hold it up.
func TestRangesThatRetentionTookAreSkipped(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1})
	for i := range 10 {
		streamtest.Produce(t, k, &kgo.Record{Topic: "in", Value: fmt.Append(nil, i)})
	}
	ranges := span(t, k)
	remove(t, k, 4)
	var got int
	if err := Scan(t.Context(), k, ranges, func(*kgo.Record) bool { got++; return true }); err != nil || got != 6 {
		t.Errorf("%d left, %v", got, err)
	}
	remove(t, k, 10)
	if err := Scan(t.Context(), k, ranges, func(*kgo.Record) bool { got++; return true }); err != nil || got != 6 {
		t.Errorf("%d of nothing, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	whole, err := proto.Marshal(&pb.DeadLetter{Reason: "exhausted", Delivery: &pb.Delivery{Id: make([]byte, 16), App: "shop"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("shop/d"), whole)
	f.Add([]byte("\xff/"), []byte{0xff})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		l := Read("dead.fcm", &kgo.Record{Key: key, Value: value})
		Match(&pb.ReplayFilter{}, l.Facts())
		if l.Sendable() && l.App() != l.Delivery.App {
			t.Error("a letter of two apps")
		}
		idOf(value)
	})
}

// remove deletes what lies before an offset.
func remove(t *testing.T, k *stream.Kafka, before int64) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset(k.Topic("in"), 0, before, -1)
	if _, err := kadm.NewClient(streamtest.Client(t, k)).DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
}
