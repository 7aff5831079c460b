package bench

import (
	"testing"
	"time"
)

func TestP99IsTheNearestRank(t *testing.T) {
	var times []time.Duration
	for i := 200; i > 0; i-- {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	if got := p99(times); got != 198 {
		t.Errorf("of 1 to 200 ms: %v", got)
	}
	if got := p99(times[:1]); got != 200 {
		t.Errorf("of one: %v", got)
	}
	if got := p99(nil); got != 0 {
		t.Errorf("of none: %v", got)
	}
	if times[0] != 200*time.Millisecond {
		t.Error("the caller's order was changed")
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("of %v: %v", tt.values, got)
		}
	}
}

// A machine that slows down in the middle, and one round that something else struck, do not show.
func TestRoundsAreComparedInPairs(t *testing.T) {
	var s series
	s.add(100, 110)
	s.add(200, 220)
	s.add(50, 500)
	if got := s.ratio(); got < 1.0999 || got > 1.1001 {
		t.Errorf("ratio %v", got)
	}
	if got := s.spread(); got != 10 {
		t.Errorf("spread %v", got)
	}
	s = series{}
	s.add(100, 50)
	if got := s.spread(); got != 2 {
		t.Errorf("a fall to half is a spread of %v", got)
	}
}

func TestStolenTime(t *testing.T) {
	before := parseMachineCPU([]byte("cpu  100 10 50 200 5 1 4 30 7 2\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
	if before != (machineTime{all: 400, stolen: 30}) {
		t.Errorf("parsed %+v", before)
	}
	after := machineTime{all: 600, stolen: 50}
	if got := after.stolenSince(before); got != 0.1 {
		t.Errorf("stolen %v, want 0.1", got)
	}
	if got := after.stolenSince(after); got != 0 { // a system that does not tell
		t.Errorf("stolen %v of no time", got)
	}
}
