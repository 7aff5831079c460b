package ledger

import (
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// FuzzBatch: whatever lies on a results topic is refused or counted, once for each result.
func FuzzBatch(f *testing.F) {
	for _, b := range []*pb.ResultBatch{
		{},
		{Expanded: []*pb.Expanded{{Chunk: 1, Total: 2, Planned: 3}}},
		{Results: []*pb.Result{{Delivery: make([]byte, 16), Outcome: pb.Outcome_OUTCOME_DEAD, Code: "500", At: 7, Planned: true}}},
		{Results: []*pb.Result{{Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Invalid: &pb.Invalid{Device: "d", At: 2, RegisteredAt: 1}}}},
		{Results: []*pb.Result{{Outcome: 99}}, Replayed: []*pb.Replayed{{Dead: 1, Planned: 1}}},
	} {
		value, err := proto.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		batch, err := decodeBatch(value)
		if err != nil {
			return
		}
		a := &pb.Account{}
		add(a, batch)
		counted := a.Accepted + a.Unregistered + a.Rejected + a.Expired + a.Cancelled + a.Dead + a.Deferred
		for _, r := range batch.Replayed {
			counted += uint64(r.Dead)
		}
		if counted != uint64(len(batch.Results)) {
			t.Errorf("%d results, %d counted", len(batch.Results), counted)
		}
		if len(a.Codes) > maxCodes+1 {
			t.Errorf("%d codes", len(a.Codes))
		}
		again := &pb.Account{}
		if err := proto.Unmarshal(encode(a), again); err != nil || !proto.Equal(a, again) {
			t.Errorf("the account cannot be written: %v", err)
		}
	})
}
