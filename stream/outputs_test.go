package stream

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A client that has not said what became of a record may still write into it: the next attempt has records of its own.
func TestOutputsTriedAgainAreNewRecords(t *testing.T) {
	k := &Kafka{Prefix: "p."}
	var o outputs
	var want []string
	for i := range 2*len(slab{}) + 1 {
		key := strconv.Itoa(i)
		o.add([]Output{{Topic: "a", Key: []byte(key), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "h"}}}})
		want = append(want, "p.a/"+key)
	}
	attempt := func() (records []*kgo.Record, names []string) {
		o.produce(k, time.Unix(7, 0), func(r *kgo.Record) {
			records, names = append(records, r), append(names, r.Topic+"/"+string(r.Key))
			if r.Partition != 0 || r.Offset != 0 || len(r.Headers) != 1 || !r.Timestamp.Equal(time.Unix(7, 0)) {
				t.Fatalf("not as it was given: %+v", r)
			}
			r.Partition, r.Offset, r.LeaderEpoch = 3, 4, 5 // as a client does
		})
		return records, names
	}
	first, names := attempt()
	second, again := attempt()
	if !slices.Equal(names, want) || !slices.Equal(again, want) {
		t.Errorf("%d and %d records for %d outputs, or in another order", len(names), len(again), len(want))
	}
	for i, r := range first {
		if r == second[i] || r.Offset != 4 {
			t.Fatalf("record %d is the same one, or lost what its client wrote", i)
		}
	}
	o.free()
	for _, r := range second {
		if r.Key != nil {
			t.Fatal("a record that was given back holds its key")
		}
	}
}
