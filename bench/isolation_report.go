package bench

import (
	"fmt"
	"io"
)

// IsolationReport is what Isolation found.
type IsolationReport struct {
	Name string `json:"name"`
	// Comparisons are the lowest throughput ratio and the highest p99 ratio of all pairs.
	Comparisons []Comparison    `json:"comparisons"`
	Pairs       []IsolationPair `json:"pairs"`
	// Noise is a pair of the same with itself: what the other pairs' figures cannot tell from nothing.
	Noise IsolationPair `json:"noise"`
}

// IsolationPair is one comparison. Ratios are the medians of the rounds', with the sick one over without it.
type IsolationPair struct {
	Name            string  `json:"name"`
	ThroughputRatio float64 `json:"throughput_ratio"`
	P99Ratio        float64 `json:"p99_ratio"`
	Rounds          int     `json:"rounds"`
	// Throughput and P99 are the rounds', without and with in turns: deliveries a second, and ms.
	Throughput []float64 `json:"throughput"`
	P99        []float64 `json:"p99_ms"`
	// The spreads are the widest of the rounds' ratios, up or down.
	ThroughputSpread float64 `json:"throughput_spread"`
	P99Spread        float64 `json:"p99_spread"`
	// Stolen is the part of the machine's processor time that its hypervisor gave to other machines meanwhile.
	Stolen float64 `json:"stolen,omitempty"`
}

func newIsolationPair(name string, throughput, delay *series) IsolationPair {
	return IsolationPair{
		Name: name, Rounds: len(delay.with),
		ThroughputRatio: throughput.ratio(), ThroughputSpread: throughput.spread(), Throughput: throughput.inTurns(),
		P99Ratio: delay.ratio(), P99Spread: delay.spread(), P99: delay.inTurns(),
	}
}

// compare keeps a pair's comparisons where they are worse than what is kept.
func (r *IsolationReport) compare(name string, throughput, delay *series) {
	of := [2]Comparison{
		throughput.comparison("deliveries/s", name, "alone", goal{least: 0.95}),
		delay.comparison("ms, p99", name, "alone", goal{most: 1.1}),
	}
	if len(r.Comparisons) == 0 {
		r.Comparisons = of[:]
		return
	}
	if of[0].Ratio < r.Comparisons[0].Ratio {
		r.Comparisons[0] = of[0]
	}
	if of[1].Ratio > r.Comparisons[1].Ratio {
		r.Comparisons[1] = of[1]
	}
}

func (p IsolationPair) String() string {
	return fmt.Sprintf("%-18s throughput ×%.2f (rounds to ×/%.2f), p99 ×%.2f (rounds to ×/%.2f)%s",
		p.Name, p.ThroughputRatio, p.ThroughputSpread, p.P99Ratio, p.P99Spread, stolenText(p.Stolen))
}

// Print implements Report.
func (r *IsolationReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "\nThe others with the sick one, compared with them alone:\n\n  %s\n", r.Noise)
	for _, p := range r.Pairs {
		if _, err := fmt.Fprintf(w, "  %s\n", p); err != nil {
			return err
		}
	}
	return nil
}
