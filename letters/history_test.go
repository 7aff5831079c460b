package letters

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// What a worker takes, its successor must know from the steps alone.
func TestClaimsAreReadAsTheyWereTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		taken, known := map[int64]bool{}, NewHistory()
		first := NewHistory()
		offset := rapid.Int64Range(0, 1<<50).Draw(t, "first")
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			var found []*Found
			for range rapid.IntRange(0, 50).Draw(t, "letters") {
				offset += rapid.Int64Range(1, 10_000).Draw(t, "gap")
				f := &Found{Facts: Facts{Topic: "dead.fcm", Partition: 1, Offset: offset}}
				if !first.Take(f) || first.Take(f) {
					t.Fatal("taken twice, or not at all")
				}
				taken[offset] = true
				found = append(found, f)
			}
			value, err := proto.Marshal(&pb.ReplayStep{App: "a", Id: "r", Claims: Claim(found)})
			if err != nil {
				t.Fatal(err)
			}
			if err := known.Apply(value); err != nil {
				t.Fatal(err)
			}
		}
		for at := range taken {
			for o := at - 1; o <= at+1; o++ {
				f := &Found{Facts: Facts{Topic: "dead.fcm", Partition: 1, Offset: o}}
				if known.Has(f) != taken[o] || first.Has(f) != taken[o] {
					t.Fatalf("offset %d: known %v, taken %v", o, known.Has(f), taken[o])
				}
			}
		}
		if known.Has(&Found{Facts: Facts{Topic: "dead.fcm", Partition: 2, Offset: offset}}) {
			t.Fatal("another partition's was taken")
		}
	})
}

func FuzzHistory(f *testing.F) {
	seed, err := proto.Marshal(&pb.ReplayStep{App: "a", Id: "r", Progress: &pb.ReplayProgress{Read: 1}, Claims: []*pb.ReplayClaim{
		{Topic: "dead.fcm", Offsets: []int64{5, 1}}, {Topic: "send.fcm.bulk", Deliveries: make([]byte, 32)},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, value []byte) {
		h := NewHistory()
		if h.Apply(value) == nil {
			h.Progress("a", "r")
		}
	})
}
