//go:build !race

package fanout

import "testing"

// What a device costs between the registry's row and its output is the memory that the output keeps, and nothing else.
func TestAllocationsOfADelivery(t *testing.T) {
	c := definition()
	run(c, epoch)
	r, err := compile(c)
	if err != nil {
		t.Fatal(err)
	}
	d := phone(1)
	target := encoded(t, d.Target)
	x := newExpansion(c, r, apns, epoch)
	n := testing.AllocsPerRun(100, func() {
		x.arena, x.outs = nil, x.outs[:0]
		for range 1000 {
			if err := x.add(d, target); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n > 1 {
		t.Errorf("1,000 deliveries allocate %v times; it took 1: their arena", n)
	}
}
