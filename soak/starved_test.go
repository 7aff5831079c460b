package main

import (
	"testing"
	"time"
)

// TestStarvedCountsWhatLiesBetween: a limit is widened by what was waited for within it, and by nothing else.
func TestStarvedCountsWhatLiesBetween(t *testing.T) {
	zero := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	var s starved
	s.note(at(1), 0)
	s.note(at(10), 2*time.Second)
	s.note(at(20), 3*time.Second)
	for _, tt := range []struct {
		from, to float64
		want     time.Duration
	}{
		{0, 30, 5 * time.Second}, {0, 8, 0}, {0, 9, time.Second}, {9, 18, 2 * time.Second}, {11, 16, 0}, {20, 30, 0},
	} {
		if got := s.during(at(tt.from), at(tt.to)); got != tt.want {
			t.Errorf("from %v to %v: %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
	if s.total != 5*time.Second || s.most != 3*time.Second {
		t.Errorf("%v in all, %v at most", s.total, s.most)
	}
}

func TestSpinTakesTheProcessor(t *testing.T) {
	if spent := spin(probeSpin); spent < probeSpin || spent > time.Second {
		t.Errorf("spun for %v", spent)
	}
}
