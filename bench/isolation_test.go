package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/belfry/belfry/simulator"
)

// No two runs share a destination, and the simulator knows the apps of all of them.
func TestRunsHaveAppsOfTheirOwn(t *testing.T) {
	b := Isolation{Rounds: 3, Paced: 10, Burst: 10}
	known := b.Population().Apps
	seen := map[string]bool{}
	with := 0
	for _, r := range b.runs(nil, nil) {
		for _, app := range slices.Compact([]string{r.measured, r.struck}) {
			if seen[app] || !slices.Contains(known, app) {
				t.Errorf("app %s of pair %s: used before %v, known %v", app, r.pair.name, seen[app], known)
			}
			seen[app] = true
		}
		if r.pair.apart == (r.measured == r.struck) {
			t.Errorf("pair %s has apps %s and %s", r.pair.name, r.measured, r.struck)
		}
		if r.with {
			with++
		}
	}
	if len(seen) != len(known) || with != 3*len(b.pairs()) {
		t.Errorf("%d of %d apps used; %d runs with the sick one, of %d pairs", len(seen), len(known), with, len(b.pairs()))
	}
}

func TestNoiseIsAlwaysMeasuredFirst(t *testing.T) {
	pairs := Isolation{Pairs: []string{"app-429"}}.pairs()
	if len(pairs) != 2 || pairs[0].name != "noise" || pairs[1].name != "app-429" || len(pairs[0].sick) != 0 {
		t.Errorf("%+v", pairs)
	}
}

// What is sick is never measured, unless it is another app's.
func TestSickServicesAreNotMeasured(t *testing.T) {
	for _, p := range (Isolation{}).pairs() {
		if !p.apart && slices.ContainsFunc(p.well, func(s simulator.Service) bool { return slices.Contains(p.sick, s) }) {
			t.Errorf("pair %s measures %v with %v sick", p.name, p.well, p.sick)
		}
	}
}

func TestRate(t *testing.T) {
	now := time.Now()
	if got := rate([]time.Time{now.Add(time.Second), now, now.Add(500 * time.Millisecond)}); got != 2 {
		t.Errorf("%v a second", got)
	}
}
