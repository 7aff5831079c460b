package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/belfry/belfry/producer"
)

// demoProgress shows a campaign per platform: as bars on a terminal, else as a line a second. It also measures.
type demoProgress struct {
	w     io.Writer
	bars  bars
	bar   map[string]bar
	began time.Time
	// last is when a platform last had a new outcome, and done how many it had then.
	last map[string]time.Time
	done map[string]uint64
}

func newDemoProgress(w io.Writer) *demoProgress {
	return &demoProgress{
		w: w, bars: newBars(w), bar: map[string]bar{}, began: time.Now(),
		last: map[string]time.Time{}, done: map[string]uint64{},
	}
}

func (d *demoProgress) show(p producer.Progress) {
	var line strings.Builder
	for _, name := range []string{"apns", "fcm", "webpush"} {
		c, ok := p.Platforms[name]
		if !ok {
			continue
		}
		done := c.Planned - c.Pending
		if done != d.done[name] {
			d.done[name], d.last[name] = done, time.Now()
		}
		if onTerminal(d.w) {
			b, ok := d.bar[name]
			if !ok {
				b = d.bars.add(name, int64(c.Planned))
				d.bar[name] = b
			}
			b.set(int64(done), int64(c.Planned))
		}
		fmt.Fprintf(&line, "  %s %d/%d", name, done, c.Planned)
	}
	if !onTerminal(d.w) && line.Len() > 0 {
		fmt.Fprintf(d.w, "      %s\n", line.String())
	}
}

func (d *demoProgress) end() {
	for _, b := range d.bar {
		b.end()
	}
	d.bars.wait()
}

// rates are outcomes per second of each platform, from the campaign's launch to its last one.
func (d *demoProgress) rates() map[string]float64 {
	rates := map[string]float64{}
	for name, at := range d.last {
		rates[name] = float64(d.done[name]) / at.Sub(d.began).Seconds()
	}
	return rates
}
