package ledger

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// entry is what a lane or an expander appends to a results record.
type entry struct {
	result   *pb.Result
	expanded *pb.Expanded
}

func appendEntry(value []byte, e entry) []byte {
	if e.expanded != nil {
		return schemas.AppendExpanded(value, e.expanded)
	}
	return schemas.AppendResult(value, e.result)
}

var anyEntry = rapid.Custom(func(t *rapid.T) entry {
	if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
		return entry{expanded: &pb.Expanded{Total: 12, Planned: rapid.Uint32Range(0, 5000).Draw(t, "planned")}}
	}
	return entry{result: &pb.Result{
		Outcome: pb.Outcome(rapid.Int32Range(1, 7).Draw(t, "outcome")),
		Code:    rapid.SampledFrom([]string{"", "429", "Unregistered", "expired"}).Draw(t, "code"),
		At:      rapid.Int64Range(1, 1e12).Draw(t, "at"),
		Planned: rapid.Bool().Draw(t, "planned"),
	}}
})

// Results of a run come from many partitions of two lanes, a retry hop and the expanders, cut into records by their
// commits. The account must be the same however they are ordered and cut.
func TestBooksAddUpInAnyOrderAndSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(anyEntry, 1, 60).Draw(t, "entries")
		var whole []byte
		for _, e := range entries {
			whole = appendEntry(whole, e)
		}
		one := &pb.Account{}
		add(one, decode(t, whole))

		shuffled := rapid.Permutation(entries).Draw(t, "order")
		many := &pb.Account{}
		for len(shuffled) > 0 {
			n := rapid.IntRange(1, len(shuffled)).Draw(t, "n")
			var value []byte
			for _, e := range shuffled[:n] {
				value = appendEntry(value, e)
			}
			shuffled = shuffled[n:]
			add(many, decode(t, value))
		}
		if !proto.Equal(one, many) {
			t.Fatalf("in one record:  %v\nin many records: %v", one, many)
		}

		var counted uint64
		for _, e := range entries {
			if e.expanded == nil && e.result.Outcome != pb.Outcome_OUTCOME_DEFERRED {
				counted++
			}
		}
		if ends(one) != counted {
			t.Fatalf("%d deliveries ended, the account says %d", counted, ends(one))
		}
	})
}

func decode(t *rapid.T, value []byte) *pb.ResultBatch {
	batch, err := decodeBatch(value)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// I10 over a replay: dead letters are pending again, what is resent is planned once more, and every end balances.
func TestBooksBalanceOverReplays(t *testing.T) {
	a := &pb.Account{Planned: 10, ChunksTotal: 1, ChunksExpanded: 1, Accepted: 6, Dead: 4}
	if !settled(a) {
		t.Fatal("the run has not settled")
	}
	value := schemas.AppendReplayed(nil, &pb.Replayed{Dead: 3})
	value = schemas.AppendReplayed(value, &pb.Replayed{Planned: 2})
	batch, err := decodeBatch(value)
	if err != nil {
		t.Fatal(err)
	}
	add(a, batch)
	want := &pb.Account{Planned: 12, ChunksTotal: 1, ChunksExpanded: 1, Accepted: 6, Dead: 1, Replayed: 5}
	if !proto.Equal(a, want) || settled(a) || a.Planned-ends(a) != 5 {
		t.Fatalf("got %v, want %v", a, want)
	}
	for range 5 {
		add(a, &pb.ResultBatch{Results: []*pb.Result{{Outcome: pb.Outcome_OUTCOME_ACCEPTED}}})
	}
	if !settled(a) || a.Accepted != 11 {
		t.Errorf("got %v", a)
	}
}

func TestCodesAreBounded(t *testing.T) {
	a := &pb.Account{}
	for i := range 300 {
		add(a, &pb.ResultBatch{Results: []*pb.Result{{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: fmt.Sprint("code ", i%150)}}})
	}
	if len(a.Codes) != maxCodes+1 || a.Codes["code 7"] != 2 || a.Codes[otherCode] != 300-2*maxCodes {
		t.Errorf("%d codes, other %d", len(a.Codes), a.Codes[otherCode])
	}
}

func TestSettled(t *testing.T) {
	for name, c := range map[string]struct {
		account *pb.Account
		want    bool
	}{
		"nothing yet":                {&pb.Account{}, false},
		"transactional, all ended":   {&pb.Account{Planned: 3, Accepted: 3}, false},
		"a chunk is missing":         {&pb.Account{ChunksTotal: 2, ChunksExpanded: 1, Planned: 3, Accepted: 3}, false},
		"a delivery is pending":      {&pb.Account{ChunksTotal: 2, ChunksExpanded: 2, Planned: 3, Accepted: 2, Deferred: 1}, false},
		"every kind of end":          {&pb.Account{ChunksTotal: 2, ChunksExpanded: 2, Planned: 21, Accepted: 1, Unregistered: 2, Rejected: 3, Expired: 4, Cancelled: 5, Dead: 6, Deferred: 9}, true},
		"chunks in which nobody was": {&pb.Account{ChunksTotal: 1, ChunksExpanded: 1}, true},
	} {
		if got := settled(c.account); got != c.want {
			t.Errorf("%s: settled = %v", name, got)
		}
	}
}

// An older ledger must not drop what a newer sender says: the books would never balance again.
func TestUnknownOutcomeIsNotCounted(t *testing.T) {
	value := schemas.AppendResult(nil, &pb.Result{Outcome: 99})
	if _, err := decodeBatch(value); err == nil {
		t.Error("a result with an outcome that is not known was read as if it were")
	}
}

func TestGoneOnlyIfRegisteredBefore(t *testing.T) {
	result := func(o pb.Outcome, device string, registered, at int64) *pb.Result {
		return &pb.Result{Outcome: o, Code: "410", Invalid: &pb.Invalid{Device: device, At: at, RegisteredAt: registered}}
	}
	outs := gone("shop", &pb.ResultBatch{Results: []*pb.Result{
		result(pb.Outcome_OUTCOME_UNREGISTERED, "older", 100, 101),
		result(pb.Outcome_OUTCOME_UNREGISTERED, "same", 101, 101),
		result(pb.Outcome_OUTCOME_UNREGISTERED, "newer", 102, 101),
		result(pb.Outcome_OUTCOME_REJECTED, "rejected", 100, 101),
		{Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Code: "410"},
	}})
	if len(outs) != 1 || outs[0].Topic != schemas.TopicDevices || string(outs[0].Key) != string(schemas.DeviceGoneKey("shop", "older")) {
		t.Fatalf("%d outputs: %+v", len(outs), outs)
	}
	var record pb.DeviceRecord
	if err := proto.Unmarshal(outs[0].Value, &record); err != nil {
		t.Fatal(err)
	}
	want := &pb.DeviceGone{App: "shop", Id: "older", At: 101, Code: "410"}
	if !proto.Equal(record.GetGone(), want) {
		t.Errorf("got %v, want %v", record.GetGone(), want)
	}
}
