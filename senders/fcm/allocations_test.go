//go:build !race

package fcm

import (
	"testing"

	"github.com/belfry/belfry/senders"
)

// TestAllocationsEncode fails when a delivery costs more than was recorded: nothing, once the request's buffers have grown.
func TestAllocationsEncode(t *testing.T) {
	p := provider(t, "", nil)
	for name, m := range benchmarks {
		d, c, r := personal(), compile(t, m), &senders.Request{}
		got := testing.AllocsPerRun(100, func() {
			if err := p.Encode(r, d, c, now); err != nil {
				t.Fatal(err)
			}
		})
		if got > 0 {
			t.Errorf("%s: %v allocations a delivery, none recorded", name, got)
		}
	}
}
