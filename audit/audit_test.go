package audit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/audit"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const platform = pb.Platform_PLATFORM_FCM

// books is a run of four deliveries as it should lie on the topics: three accepted, one of them after it was put off, and
// one dead. Tests spoil it.
type books struct {
	chunks  []*pb.Chunk
	sent    []*pb.Delivery
	results *pb.ResultBatch
	letters []*pb.DeadLetter
	account *pb.Account
}

func id(n int) []byte {
	b := schemas.DeliveryID("demo", "c1", fmt.Sprint(n), 0)
	return b[:]
}

func result(n int, o pb.Outcome) *pb.Result { return &pb.Result{Delivery: id(n), Outcome: o, At: 1} }

func rightBooks() *books {
	b := &books{
		chunks: []*pb.Chunk{{App: "demo", Run: "c1", Index: 0, Total: 2}, {App: "demo", Run: "c1", Index: 1, Total: 2}},
		results: &pb.ResultBatch{
			Expanded: []*pb.Expanded{{Chunk: 0, Total: 2, Planned: 3}, {Chunk: 1, Total: 2, Planned: 1}},
			Results: []*pb.Result{
				result(0, pb.Outcome_OUTCOME_ACCEPTED), result(1, pb.Outcome_OUTCOME_DEFERRED), result(2, pb.Outcome_OUTCOME_ACCEPTED),
				result(3, pb.Outcome_OUTCOME_DEAD), result(1, pb.Outcome_OUTCOME_ACCEPTED),
			},
		},
		account: &pb.Account{
			App: "demo", Run: "c1", Platform: platform, Planned: 4, Accepted: 3, Dead: 1, Deferred: 1, ChunksExpanded: 2, ChunksTotal: 2,
		},
	}
	for n := range 4 {
		b.sent = append(b.sent, &pb.Delivery{Id: id(n), App: "demo", Run: "c1", Class: pb.Class_CLASS_BULK})
	}
	b.sent = append(b.sent, &pb.Delivery{Id: id(1), App: "demo", Run: "c1", Class: pb.Class_CLASS_BULK, DueAt: 5, Attempt: 1})
	b.letters = []*pb.DeadLetter{{Delivery: b.sent[3], Reason: "exhausted"}, {Raw: []byte("of no run"), Reason: "undecodable"}}
	return b
}

func (b *books) write(t *testing.T, k *stream.Kafka) {
	t.Helper()
	client := streamtest.Client(t, k)
	put := func(topic, key string, m proto.Message) {
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: k.Topic(topic), Key: []byte(key), Value: value}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range b.chunks {
		put(schemas.TopicChunks(platform), "demo/c1", c)
	}
	for _, d := range b.sent {
		put(schemas.TopicSend(platform, d.Class), "demo/d", d)
	}
	put(schemas.TopicResults(platform), "demo/c1", b.results)
	put(schemas.TopicResults(platform), "demo/another", rightBooks().results)
	for _, l := range b.letters {
		put(schemas.TopicDead(platform), "demo/d", l)
	}
	put(schemas.TopicAccounts, "demo/c1/fcm", b.account)
}

// TestReport: books that are right show no difference, and each way in which they can be wrong is named.
func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name     string
		spoil    func(*books)
		settled  bool
		want     string // of the one difference; "" is none
		receipts string
	}{
		{"right", func(*books) {}, true, "", ""},
		{"a chunk is written again behind others", func(b *books) { b.chunks = append(b.chunks, b.chunks[0]) }, true, "", ""},
		{"still going on", func(b *books) {
			b.results.Results = b.results.Results[:4]
			b.account.Accepted, b.account.Planned = 1, 3
		}, false, "", ""},
		{"the account counts what nobody reported", func(b *books) {
			b.results.Results = b.results.Results[:4]
		}, false, "ahead of the results", ""},
		{"the account missed one", func(b *books) { b.account.Accepted-- }, true, "the account is", ""},
		{"sent twice", func(b *books) { b.sent = append(b.sent, b.sent[0]) }, true, "1 deliveries were sent out twice, and 0 replayed", ""},
		{"ended twice", func(b *books) {
			b.results.Results = append(b.results.Results, result(0, pb.Outcome_OUTCOME_ACCEPTED))
			b.account.Accepted++
		}, false, "more outcomes than were planned", ""},
		{"expanded twice", func(b *books) {
			b.results.Expanded = append(b.results.Expanded, b.results.Expanded[1])
			b.results.Results = append(b.results.Results, result(9, pb.Outcome_OUTCOME_ACCEPTED))
			b.sent = append(b.sent, &pb.Delivery{Id: id(9), App: "demo", Run: "c1", Class: pb.Class_CLASS_BULK})
			b.account.Planned++
			b.account.Accepted++
			b.account.ChunksExpanded++
		}, false, "chunks were expanded more than once", ""},
		{"a dead one is replayed, and accepted", func(b *books) {
			b.results.Replayed = []*pb.Replayed{{Dead: 1}}
			b.results.Results = append(b.results.Results, result(3, pb.Outcome_OUTCOME_ACCEPTED))
			b.sent = append(b.sent, b.sent[3])
			b.account.Dead, b.account.Accepted, b.account.Replayed = 0, 4, 1
		}, true, "", ""},
		{"a delivery is gone", func(b *books) { b.sent = b.sent[1:] }, true, "4 deliveries were planned, and 3 lie", ""},
		{"a letter is gone", func(b *books) { b.letters = b.letters[1:] }, true, "1 are dead and 0 were sent again from their letters, and there are 0 dead letters", ""},
		{"a chunk is gone", func(b *books) { b.chunks = b.chunks[1:] }, false, "2 chunks were announced, and 1 lie", ""},
		{"the provider repeats, and took one whose answer was lost", func(*books) {}, true, "", "0 1 1 2 3"},
		{"the provider never had one", func(*books) {}, true, "1 were counted as accepted, and the provider has no receipt", "0 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := streamtest.Kafka(t)
			b := rightBooks()
			tt.spoil(b)
			b.write(t, k)
			count, err := audit.Read(t.Context(), k, time.Time{}, func(r audit.Run) bool { return r.Run == "c1" })
			if err != nil {
				t.Fatal(err)
			}
			var receipts map[[16]byte]int
			for n := range strings.FieldsSeq(tt.receipts) {
				if receipts == nil {
					receipts = map[[16]byte]int{}
				}
				receipts[[16]byte(id(int(n[0]-'0')))]++
			}
			r := count.Report(audit.Run{App: "demo", Run: "c1"}, receipts)
			if r.Settled != tt.settled {
				t.Errorf("settled: %v", r.Settled)
			}
			found := strings.Join(r.Differences, "\n")
			if (tt.want == "") != (found == "") || !strings.Contains(found, tt.want) {
				t.Errorf("differences %q, want %q", found, tt.want)
			}
			if len(r.Platforms) != 1 || len(count.Runs()) != 1 {
				t.Fatalf("%+v, runs %v", r, count.Runs())
			}
			if got := r.Platforms[0].Received; tt.receipts == "0 1 1 2 3" && *got != (audit.Received{Deliveries: 4, Repeats: 1, Unheard: 1}) {
				t.Errorf("received: %+v", got)
			}
		})
	}
}

func TestReceipts(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/receipts", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "{\"id\":\"00010203-0405-0607-0809-0a0b0c0d0e0f\",\"times\":2}\n")
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	got, err := audit.Receipts(t.Context(), s.URL+"/")
	if err != nil || len(got) != 1 || got[[16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}] != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := audit.Receipts(t.Context(), s.URL+"/elsewhere"); err == nil {
		t.Error("no error from an address that is no simulator's")
	}
}
