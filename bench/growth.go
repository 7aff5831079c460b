package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// Growth measures the time and the memory that campaigns take by how many devices they go to: in proportion, and the
// senders' memory the same for all.
type Growth struct {
	// Sizes are in ascending order, at least three.
	Sizes  []int
	Rounds int
}

// tiers are the processes, by what one would scale apart.
var tiers = []struct {
	name  string
	roles []string
}{
	{"api", []string{"producer", "registry", "trigger"}},
	{"urgent", []string{"senders.apns.urgent", "senders.fcm.urgent", "senders.webpush.urgent"}},
	{"fanout", []string{"fanout"}},
	{"senders", []string{"senders.apns.bulk", "senders.fcm.bulk", "senders.webpush.bulk"}},
	{"ledger", []string{"ledger"}},
}

// serveAll starts all tiers.
func (d *deployment) serveAll(ctx context.Context) error {
	for _, t := range tiers {
		if _, err := d.serve(ctx, t.name, t.roles...); err != nil {
			return err
		}
	}
	return nil
}

// Run implements Bench.
func (b Growth) Run(ctx context.Context, e *Env) (_ Report, err error) {
	apps := make([]string, len(b.Sizes))
	for i, n := range b.Sizes {
		apps[i] = fmt.Sprintf("to-%d", n)
	}
	d, err := e.deploy(ctx, simulator.Population{Seed: 1, Apps: append(apps, benchApp), Devices: slices.Max(b.Sizes)}, startNginx)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	if err := d.serveAll(ctx); err != nil {
		return nil, err
	}
	g := &growth{Growth: b, deployment: d, apps: apps, memory: map[string]map[string][]float64{}}
	if err := g.enrol(ctx); err != nil {
		return nil, err
	}
	c := &contest{unit: "s", rounds: b.Rounds, env: e}
	for i, n := range b.Sizes {
		c.sides = append(c.sides, side{sizeName(n), func(ctx context.Context) (sample, error) { return g.campaign(ctx, i) }})
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	return g.result(c, e.kind()), nil
}

func sizeName(n int) string { return thousands(int64(n)) + " devices" }

type growth struct {
	Growth
	*deployment
	apps []string
	// imports are the seconds that registering each size took.
	imports []float64
	// memory is the peaks by size and process, MiB, round by round.
	memory    map[string]map[string][]float64
	campaigns int
}

// enrol registers the devices of each size, in an app of its own.
func (g *growth) enrol(ctx context.Context) error {
	if err := g.deployment.enrol(ctx, benchApp, warmDevices); err != nil {
		return err
	}
	if err := g.warm(ctx, "warm"); err != nil {
		return err
	}
	for i, n := range g.Sizes {
		began := time.Now()
		if err := g.deployment.enrol(ctx, g.apps[i], n); err != nil {
			return err
		}
		g.imports = append(g.imports, time.Since(began).Seconds())
		g.say("registered %s devices in %.1f s", thousands(int64(n)), g.imports[i])
	}
	return nil
}

// campaign sends one to all devices of a size.
func (g *growth) campaign(ctx context.Context, i int) (s sample, err error) {
	for _, p := range g.all {
		if err := p.resetPeak(); err != nil {
			return s, err
		}
	}
	g.campaigns++
	id := fmt.Sprintf("growth-%d", g.campaigns)
	m, err := newMeterOf(g.all, g.process)
	if err != nil {
		return s, err
	}
	if err := g.launch(ctx, g.apps[i], id, producer.Audience{Everyone: true}); err != nil {
		return s, err
	}
	if err := g.finish(ctx, g.apps[i], id, g.Sizes[i]); err != nil {
		return s, err
	}
	if s, err = m.end(g.Sizes[i]); err != nil {
		return s, err
	}
	s.value = s.wall.Seconds()
	size := sizeName(g.Sizes[i])
	if g.memory[size] == nil {
		g.memory[size] = map[string][]float64{}
	}
	for name, p := range g.running {
		peak, err := p.peak()
		if err != nil {
			return s, err
		}
		g.memory[size][name] = append(g.memory[size][name], float64(peak)/(1<<20))
	}
	return s, nil
}

// result compares the largest size with the line through the smallest and the last but one.
func (g *growth) result(c *contest, kind string) *Result {
	n := len(g.Sizes)
	largest, before := sizeName(g.Sizes[n-1]), sizeName(g.Sizes[n-2])
	r := &Result{Name: "growth", Unit: c.unit, Rounds: c.rounds}
	var line, senders series
	for round := range c.rounds {
		at := func(i int) float64 { return c.samples[sizeName(g.Sizes[i])][round].value }
		slope := (at(n-2) - at(0)) / float64(g.Sizes[n-2]-g.Sizes[0])
		line.add(at(0)+slope*float64(g.Sizes[n-1]-g.Sizes[0]), at(n-1))
		senders.add(g.memory[before]["senders"][round], g.memory[largest]["senders"][round])
	}
	r.Comparisons = []Comparison{
		line.comparison("s", largest, "the line through the smaller sizes", goal{most: 1.1}),
		senders.comparison("MiB of the senders at most", largest, before, goal{most: 1.1}),
	}
	r.Ratio, r.Spread = r.Comparisons[0].Ratio, r.Comparisons[0].Spread
	for i := range g.Sizes {
		s := c.side(sizeName(g.Sizes[i]))
		s.Memory = map[string]float64{}
		for process, peaks := range g.memory[s.Name] {
			s.Memory[process] = median(peaks)
		}
		r.Sides = append(r.Sides, s)
	}
	r.Engine, r.Baseline = r.Sides[n-1], Side{Name: "linear", Value: r.Comparisons[0].Value}
	r.Note = kind
	for i, seconds := range g.imports {
		r.Note += fmt.Sprintf("; %s registered in %.1f s", sizeName(g.Sizes[i]), seconds)
	}
	return r
}
