//go:build !race

package registry

import "testing"

func TestAllocations(t *testing.T) {
	record := packed(t, full())
	row := newRow(Wanted{Tags: true, Attributes: []string{"level", "plan", "vip"}})
	if n := testing.AllocsPerRun(100, func() {
		if err := row.decode(record); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("decoding a device allocates %v times; it took none", n)
	}
}
