package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/belfry/belfry/bench"
)

// Each measurement, as small as it can be, comes to its end with figures that can be read by people and programs.
func TestBenches(t *testing.T) {
	if testing.Short() {
		t.Skip("starts all of Belfry three times")
	}
	for name, b := range map[string]bench.Bench{
		"urgent":   bench.Staged{Scene: bench.Urgent{Devices: 10_000, Rounds: 1, Calls: 5, Every: 2 * time.Millisecond}},
		"fairness": bench.Staged{Scene: bench.Fairness{Devices: 10_000, Small: 5, Rounds: 1}},
		"isolation": bench.Staged{Scene: bench.Isolation{
			Pairs: []string{"webpush-blackhole", "app-429"}, Rounds: 1, Ticks: 2, Paced: 20, Bursts: 1, Burst: 40,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			report, err := measure(t.Context(), b, benchOptions{}, &said)
			if err != nil {
				t.Fatalf("%v, after:\n%s", err, said.String())
			}
			if strings.Contains(said.String(), "level=ERROR") {
				t.Errorf("it said:\n%s", said.String())
			}
			text, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			var figures map[string]any
			if err := json.Unmarshal(text, &figures); err != nil {
				t.Fatal(err)
			}
			for _, key := range map[string][]string{
				"urgent": {"idle_p99_ms", "blast_p99_ms", "ratio", "rounds"}, "fairness": {"other_app", "same_app"},
				"isolation": {"pairs", "noise"},
			}[name] {
				if figures[key] == nil {
					t.Errorf("%s is missing in %s", key, text)
				}
			}
			var people bytes.Buffer
			if err := report.Print(&people); err != nil || people.Len() == 0 {
				t.Errorf("%v: %q", err, people.String())
			}
		})
	}
}
