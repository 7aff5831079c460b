package letters

import (
	"cmp"
	"slices"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Bar is what a histogram counts together.
type Bar struct {
	Platform pb.Platform
	Run      string
	Origin   string
	Reason   string
	Code     string
}

// Tally is how many there are of a bar, and what a replay would do with them.
type Tally struct {
	Bar
	Count, Send, Expired, Replayed, Unreadable uint64
	// Oldest and Newest are Unix ms.
	Oldest, Newest int64
}

// maxBars bounds a histogram. What does not find a place is counted under a bar of its platform alone.
const maxBars = 2000

// Histogram counts what was found by platform, run, origin, reason and code.
type Histogram map[Bar]*Tally

// Add counts one.
func (h Histogram) Add(x Facts, v Verdict) {
	bar := Bar{x.Platform, x.Run, x.Origin, x.Reason, x.Code}
	t := h[bar]
	if t == nil && len(h) >= maxBars {
		bar = Bar{Platform: x.Platform, Reason: "other"}
		t = h[bar]
	}
	if t == nil {
		t = &Tally{Bar: bar, Oldest: x.At, Newest: x.At}
		h[bar] = t
	}
	t.Count++
	*[...]*uint64{Send: &t.Send, Expired: &t.Expired, Replayed: &t.Replayed, Unreadable: &t.Unreadable}[v]++
	t.Oldest, t.Newest = min(t.Oldest, x.At), max(t.Newest, x.At)
}

// Sorted lists the tallies, the largest first.
func (h Histogram) Sorted() []*Tally {
	all := make([]*Tally, 0, len(h))
	for _, t := range h {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Tally) int {
		return cmp.Or(
			cmp.Compare(b.Count, a.Count), cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.Run, b.Run),
			cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Code, b.Code),
		)
	})
	return all
}
