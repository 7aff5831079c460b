package stream

import (
	"strings"
	"testing"
)

// TestPortionsAreBounded: what one request commits stays far below what the offsets topic takes as one batch, and nothing is left out.
func TestPortionsAreBounded(t *testing.T) {
	for _, n := range []int{0, 1, 74, 75, 360, 5000} {
		snap := &snapshot{}
		for i := range n {
			snap.parts = append(snap.parts, &part{base: int64(i), meta: strings.Repeat("m", 3000)})
		}
		next := int64(0)
		for parts := range snap.portions() {
			size := 0
			for _, p := range parts {
				if p.base != next {
					t.Fatalf("of %d: %d comes after %d", n, p.base, next-1)
				}
				next++
				size += len(p.meta)
			}
			if size > 256<<10 || size == 0 {
				t.Errorf("of %d: %d bytes in one request", n, size)
			}
		}
		if int(next) != n {
			t.Errorf("%d of %d are committed", next, n)
		}
	}
}
