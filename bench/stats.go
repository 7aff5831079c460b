package bench

import (
	"math"
	"slices"
	"time"
)

// p99 is the time, in ms, that 99 of 100 were not above: the nearest rank. It is 0 for none.
func p99(times []time.Duration) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	rank := int(math.Ceil(0.99 * float64(len(sorted))))
	return ms(sorted[rank-1])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median is the middle value, or the mean of the two in the middle. It is 0 for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// series is one figure of all rounds, without and with what is measured, in pairs.
type series struct{ without, with []float64 }

func (s *series) add(without, with float64) {
	s.without = append(s.without, without)
	s.with = append(s.with, with)
}

// ratio is the median of the rounds' ratios, with over without: each round is compared with its own neighbour in time, and
// one that something else struck does not count.
func (s *series) ratio() float64 { return median(s.ratios()) }

func (s *series) ratios() []float64 {
	r := make([]float64, len(s.with))
	for i := range r {
		r[i] = s.with[i] / s.without[i]
	}
	return r
}

// between is the smallest and the largest of the rounds' ratios.
func (s *series) between() [2]float64 {
	return [2]float64{slices.Min(s.ratios()), slices.Max(s.ratios())}
}

// spread is the widest of the rounds' ratios, up or down, as a factor of at least 1.
func (s *series) spread() float64 {
	widest := 1.0
	for _, r := range s.ratios() {
		widest = max(widest, r, 1/r)
	}
	return widest
}

// inTurns is the figure as it was measured: without, with, without, with, …
func (s *series) inTurns() []float64 {
	var all []float64
	for i := range s.with {
		all = append(all, s.without[i], s.with[i])
	}
	return all
}
