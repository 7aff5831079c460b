package bench

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result is what a contest found. Engine, Baseline and Ratio are those of the first comparison.
type Result struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Engine   Side    `json:"engine"`
	Baseline Side    `json:"baseline"`
	Ratio    float64 `json:"ratio"`
	// Spread is the smallest and the largest of the rounds' ratios.
	Spread      [2]float64   `json:"spread"`
	Comparisons []Comparison `json:"comparisons"`
	// Sides are all that were measured.
	Sides  []Side `json:"sides"`
	Rounds int    `json:"rounds"`
	// Note says what a reader must know of this run.
	Note string `json:"note,omitempty"`
}

// Side is one of those that were measured: the medians over the rounds.
type Side struct {
	Name string `json:"name"`
	// Value is in the result's unit.
	Value float64 `json:"value"`
	// CPU is the processor time that a million operations cost the side itself, seconds, and PerCPU their inverse:
	// operations a CPU second. 0: not measured.
	CPU    float64 `json:"cpu_s_per_million,omitempty"`
	PerCPU float64 `json:"per_cpu_second,omitempty"`
	// Allocs are heap objects an operation. Missing: it happened in another process.
	Allocs *float64 `json:"allocs_per_op,omitempty"`
	// ServerShare is the server's part of the CPU time that both took, and ServerBusy how many cores it kept busy: a
	// server with one thread is the limit at 1.
	ServerShare float64 `json:"server_share,omitempty"`
	ServerBusy  float64 `json:"server_busy,omitempty"`
	// Memory is the most that each process of the side had resident, MiB.
	Memory map[string]float64 `json:"memory_mib,omitempty"`
	// Stolen is the largest part of the machine's processor time in any round that its hypervisor gave to other machines:
	// with more than a hundredth or so, times in the tail are the hypervisor's. 0: none, or not known.
	Stolen float64 `json:"stolen,omitempty"`
	// Rounds are the values as measured.
	Rounds []float64 `json:"rounds,omitempty"`
}

// Comparison is the engine against one baseline in one figure: the median of the rounds' ratios.
type Comparison struct {
	Of string `json:"of"`
	// Side is whose figure Engine is.
	Side     string     `json:"side"`
	Engine   float64    `json:"engine"`
	Baseline string     `json:"baseline"`
	Value    float64    `json:"baseline_value"`
	Ratio    float64    `json:"ratio"`
	Spread   [2]float64 `json:"spread"`
	Goal     string     `json:"goal"`
	Reached  bool       `json:"reached"`
}

// goal is what a comparison should come to.
type goal struct {
	of metric
	// engine is the side in question; "": the first.
	engine string
	// against is another side; "": the number fixed.
	against string
	fixed   float64
	// least or most is what the ratio should be; the other is 0. Without either there is no goal.
	least, most float64
}

func (g goal) String() string {
	switch {
	case g.most > 0:
		return "≤ " + strconv.FormatFloat(g.most, 'g', -1, 64)
	case g.least > 0:
		return "≥ " + strconv.FormatFloat(g.least, 'g', -1, 64)
	}
	return noGoal
}

// noGoal is the goal of a comparison that is for the reader alone.
const noGoal = "none"

// reached says whether a ratio is what it should be.
func (g goal) reached(ratio float64) bool {
	return ratio >= g.least && (g.most == 0 || ratio <= g.most)
}

// result compares the first side with the others.
func (c *contest) result(name string, goals ...goal) *Result {
	r := &Result{Name: name, Unit: c.unit, Rounds: c.rounds}
	for _, s := range c.sides {
		r.Sides = append(r.Sides, c.side(s.name))
	}
	for _, part := range c.parts {
		r.Sides = append(r.Sides, c.side(part))
	}
	r.Engine = r.Sides[0]
	for _, g := range goals {
		r.Comparisons = append(r.Comparisons, c.compare(g))
	}
	first := r.Comparisons[0]
	r.Ratio, r.Spread = first.Ratio, first.Spread
	r.Baseline = Side{Name: first.Baseline, Value: first.Value}
	if i := slices.IndexFunc(r.Sides, func(s Side) bool { return s.Name == first.Baseline }); i >= 0 {
		r.Baseline = r.Sides[i]
	}
	return r
}

// side makes the medians.
func (c *contest) side(name string) Side {
	s := Side{Name: name, Rounds: c.values(name, byValue)}
	s.Value = median(s.Rounds)
	if cpu := median(c.values(name, byCPU)); cpu > 0 && !math.IsNaN(cpu) {
		s.CPU, s.PerCPU = cpu, 1e6/cpu
	}
	if of := median(c.values(name, metric{of: func(s sample) float64 { return s.allocs / s.ops }})); of >= 0 {
		s.Allocs = &of
	}
	s.Stolen = slices.Max(c.values(name, metric{of: func(s sample) float64 { return s.stolen }}))
	s.ServerShare = median(c.values(name, metric{of: func(s sample) float64 { return part(s.server, s.server+s.cpu) }}))
	s.ServerBusy = median(c.values(name, metric{of: func(s sample) float64 { return part(s.server, s.wall) }}))
	return s
}

// part is a's part of b, and 0 of nothing.
func part(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func (c *contest) compare(g goal) Comparison {
	name, of, baseline := cmp.Or(g.engine, c.sides[0].name), g.of.name, g.against
	if g.of.name == byValue.name {
		of = c.unit
	}
	if g.against == "" {
		baseline = figure(g.fixed) + " " + of
	}
	var s series
	for i, value := range c.values(name, g.of) {
		with := g.fixed
		if g.against != "" {
			with = g.of.of(c.samples[g.against][i])
		}
		s.add(with, value)
	}
	return s.comparison(of, name, baseline, g)
}

// comparison is of a side, with, against a baseline, without.
func (s *series) comparison(of, side, baseline string, g goal) Comparison {
	return Comparison{
		Of: of, Side: side, Engine: median(s.with), Baseline: baseline, Value: median(s.without),
		Ratio: s.ratio(), Spread: s.between(), Goal: g.String(), Reached: g.reached(s.ratio()),
	}
}

// Print implements Report.
func (r *Result) Print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, medians of %d rounds:\n\n", r.Name, r.Rounds)
	for _, s := range r.Sides {
		fmt.Fprintf(w, "  %s\n", s.line(r.Unit))
	}
	fmt.Fprintln(w)
	for _, c := range r.Comparisons {
		fmt.Fprintf(w, "  %s, %s against %s: ×%.3g (rounds %.3g to %.3g)", c.Of, c.Side, c.Baseline, c.Ratio, c.Spread[0], c.Spread[1])
		switch {
		case c.Goal == noGoal:
			fmt.Fprintln(w)
		case c.Reached:
			fmt.Fprintf(w, ", to be %s: reached\n", c.Goal)
		default:
			fmt.Fprintf(w, ", to be %s: NOT reached\n", c.Goal)
		}
	}
	if r.Note != "" {
		fmt.Fprintf(w, "\n  %s\n", r.Note)
	}
	return nil
}

func (s Side) line(unit string) string {
	parts := []string{fmt.Sprintf("%-28s %10s %s", s.Name, figure(s.Value), unit)}
	if s.CPU > 0 {
		parts = append(parts, fmt.Sprintf("%.2f s of CPU a million", s.CPU))
	}
	if s.Allocs != nil {
		parts = append(parts, fmt.Sprintf("%.1f allocations each", *s.Allocs))
	}
	if s.ServerBusy > 0 {
		parts = append(parts, fmt.Sprintf("server %.0f %% of the CPU, %.2f cores", 100*s.ServerShare, s.ServerBusy))
	}
	if text := stolenText(s.Stolen); text != "" {
		parts = append(parts, "in a round"+text)
	}
	for _, name := range sortedKeys(s.Memory) {
		parts = append(parts, fmt.Sprintf("%s %.0f MiB", name, s.Memory[name]))
	}
	return strings.Join(parts, ", ")
}

// stolenText says what the hypervisor took, if it is worth a word.
func stolenText(part float64) string {
	if part < 0.01 {
		return ""
	}
	return fmt.Sprintf(", %.0f %% of the cores' time stolen by the hypervisor", 100*part)
}

// figure writes a number for people: three digits that mean something.
func figure(v float64) string {
	switch {
	case math.Abs(v) >= 1000:
		return thousands(int64(math.Round(v)))
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
