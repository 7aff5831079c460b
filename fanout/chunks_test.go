package fanout

import (
	"fmt"
	"slices"
	"testing"

	"github.com/belfry/belfry/schemas"
)

func TestShardsAreCutIntoRangesThatCoverThemAll(t *testing.T) {
	for name, sizes := range map[string]func(int) uint32{
		"even":         func(int) uint32 { return 300 },
		"few":          func(i int) uint32 { return map[int]uint32{17: 1, 4000: 2}[i] },
		"large shards": func(int) uint32 { return 9000 },
		"first only":   func(i int) uint32 { return map[int]uint32{0: 20_000}[i] },
		"last only":    func(i int) uint32 { return map[int]uint32{schemas.Shards - 1: 20_000}[i] },
	} {
		var all []uint32
		var total, cut, at uint32
		for i := range schemas.Shards {
			all = append(all, sizes(i))
			total += sizes(i)
		}
		for _, c := range sliceShards(all, chunkDevices) {
			if c.FirstShard != at || c.EndShard <= at {
				t.Fatalf("%s: a chunk covers [%d, %d) after %d", name, c.FirstShard, c.EndShard, at)
			}
			if c.Estimate > chunkDevices && slices.Max(all) < chunkDevices {
				t.Errorf("%s: a chunk of %d devices in shards [%d, %d)", name, c.Estimate, c.FirstShard, c.EndShard)
			}
			at, cut = c.EndShard, cut+c.Estimate
		}
		if at != schemas.Shards || cut != total {
			t.Errorf("%s: chunks end at shard %d with %d of %d devices", name, at, cut, total)
		}
	}
	if got := sliceShards(make([]uint32, schemas.Shards), chunkDevices); got != nil {
		t.Errorf("no devices make %v", got)
	}
}

func TestPacedCampaignsHaveSmallerChunks(t *testing.T) {
	got := fmt.Sprint(chunkSize(0), chunkSize(1), chunkSize(700), chunkSize(1e6))
	if want := "5000 100 700 5000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
