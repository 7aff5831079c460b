package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a contest of a machine that slows down: every call takes as long as the one before and a tenth more. The
// engine takes half as long as the baseline, whatever the machine does.
func made(t *testing.T, rounds int) (*contest, []string) {
	t.Helper()
	var order []string
	slowness := 1.0
	one := func(name string, seconds float64) side {
		return side{name, func(context.Context) (sample, error) {
			order = append(order, name)
			slowness *= 1.1
			took := time.Duration(seconds * slowness * float64(time.Second))
			return sample{
				value: 1000 / took.Seconds(), ops: 1000, wall: took, cpu: took / 2, server: took / 4, allocs: 3000,
			}, nil
		}}
	}
	base := one("baseline", 2)
	c := &contest{unit: "ops/s", rounds: rounds, env: &Env{Say: t.Logf}, sides: []side{one("engine", 1), {"baseline", func(ctx context.Context) (sample, error) {
		s, err := base.run(ctx)
		s.allocs = noAllocs
		return s, err
	}}}}
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, order
}

// Whoever comes first in one round comes last in the next, so that neither is favoured.
func TestSidesTakeTurns(t *testing.T) {
	c, order := made(t, 4)
	if want := strings.Fields("engine baseline baseline engine engine baseline baseline engine"); !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
	r := c.result("made", goal{of: byValue, against: "baseline", least: 1.9})
	// One order would say 2.2 in every round, and so would the median.
	if r.Ratio < 1.95 || r.Ratio > 2.05 || r.Spread[0] > 1.85 || r.Spread[1] < 2.15 {
		t.Errorf("ratio %v, %v", r.Ratio, r.Spread)
	}
}

func TestResult(t *testing.T) {
	c, _ := made(t, 2)
	r := c.result("made",
		goal{of: byValue, against: "baseline", least: 3},
		goal{of: byCPU, against: "baseline", most: 1.5},
		goal{of: perCPU, fixed: 1000, least: 1},
		goal{of: byValue, engine: "baseline", against: "engine"})
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "unit", "engine", "baseline", "ratio", "spread", "comparisons", "sides", "rounds"} {
		if got[key] == nil {
			t.Errorf("%s is missing in %s", key, text)
		}
	}
	engine, baseline := got["engine"].(map[string]any), got["baseline"].(map[string]any)
	if engine["name"] != "engine" || engine["allocs_per_op"] != 3.0 || baseline["name"] != "baseline" || baseline["allocs_per_op"] != nil {
		t.Errorf("sides in %s", text)
	}
	// A third of what both took, half a core of a side that takes half a core.
	if share, busy := r.Engine.ServerShare, r.Engine.ServerBusy; fmt.Sprintf("%.3f %.3f", share, busy) != "0.333 0.250" {
		t.Errorf("server %v of the CPU, %v cores", share, busy)
	}
	// Rounds of 1.1 and 1.4641 s for a thousand, half of it CPU.
	if s := r.Engine.CPU; fmt.Sprintf("%.1f", s) != "641.0" {
		t.Errorf("%v s of CPU a million", s)
	}
	if cpu := r.Engine.CPU * r.Engine.PerCPU / 1e6; cpu < 0.98 || cpu > 1.02 {
		t.Errorf("%v s of CPU a million is not the inverse of %v a second", r.Engine.CPU, r.Engine.PerCPU)
	}
	var reached []bool
	for _, c := range r.Comparisons {
		reached = append(reached, c.Reached)
	}
	if want := []bool{false, true, true, true}; !slices.Equal(reached, want) {
		t.Errorf("reached %v: %+v", reached, r.Comparisons)
	}
	if last := r.Comparisons[3]; last.Goal != "none" || last.Ratio > 0.6 {
		t.Errorf("the baseline against the engine: %+v", last)
	}
	if len(r.Comparisons[2].Baseline) == 0 || r.Comparisons[2].Value != 1000 {
		t.Errorf("a fixed baseline: %+v", r.Comparisons[2])
	}
}

func TestAContestEndsWithItsFirstError(t *testing.T) {
	broken := errors.New("broken")
	c := &contest{rounds: 3, env: &Env{Say: t.Logf}, sides: []side{{"one", func(context.Context) (sample, error) { return sample{}, broken }}}}
	if err := c.run(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "one, round 1") {
		t.Errorf("%v", err)
	}
}

// Only what is between the markers changes, however often it is written.
func TestWriteTable(t *testing.T) {
	c, _ := made(t, 2)
	line, err := json.Marshal(c.result("made", goal{of: byValue, against: "baseline", least: 3}))
	if err != nil {
		t.Fatal(err)
	}
	doc := []byte("before\n" + tableBegin + "old\n" + tableEnd + "after\n")
	for range 2 {
		if doc, err = WriteTable(doc, strings.NewReader(string(line)+"\n"+string(line)+"\n"), "here"); err != nil {
			t.Fatal(err)
		}
	}
	got := string(doc)
	if !strings.HasPrefix(got, "before\n"+tableBegin) || !strings.HasSuffix(got, "\n\nhere\n"+tableEnd+"after\n") || strings.Contains(got, "old") {
		t.Errorf("the document is\n%s", got)
	}
	if n := strings.Count(got, "| `made` |"); n != 2 {
		t.Errorf("%d rows in\n%s", n, got)
	}
	for _, bad := range []string{"no markers", tableEnd + tableBegin} {
		if _, err := WriteTable([]byte(bad), strings.NewReader(string(line)), ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := WriteTable(doc, strings.NewReader(`{"pairs":[]}`), ""); err == nil {
		t.Error("a result of another kind was taken")
	}
}

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{0.01234: "0.0123", 5.678: "5.68", 123.4: "123", 1234.5: "1,235", 12345678: "12,345,678", -4321: "-4,321"} {
		if got := figure(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestH2loadReport(t *testing.T) {
	report := []byte("starting benchmark...\n\nfinished in 2.70s, 111090.21 req/s, 7.42MB/s\n" +
		"requests: 300000 total, 300000 started, 300000 done, 300000 succeeded, 0 failed, 0 errored, 0 timeout\n")
	if took, err := h2loadSeconds(report, 300_000); err != nil || took != 2700*time.Millisecond {
		t.Errorf("%v, %v", took, err)
	}
	if _, err := h2loadSeconds(report, 300_001); err == nil {
		t.Error("requests that failed were not noticed")
	}
	if took, err := h2loadSeconds([]byte(strings.Replace(string(report), "2.70s", "270.15ms", 1)), 300_000); err != nil || took != 270150*time.Microsecond {
		t.Errorf("%v, %v", took, err)
	}
}
