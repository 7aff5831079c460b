package bench

import (
	"context"
	"time"

	"github.com/belfry/belfry/simulator"
)

// Urgent measures the time from an API call for a transactional message to its request at the provider, on APNs and on web
// push in turns, with nothing else to do and during a blast over all platforms in the same app, on the same credentials and
// destinations. Each role is in a process of its own, or with others of its kind: see [Latency], which asks the same of APNs
// alone.
type Urgent struct {
	// Devices are whom the blast goes to, in so many Campaigns.
	Devices, Campaigns int
	Rounds             int
	// Calls are made in each part of a round, one every Every, whether or not earlier ones have been answered.
	Calls int
	Every time.Duration
}

// Run implements Bench.
func (b Urgent) Run(ctx context.Context, e *Env) (_ Report, err error) {
	d, err := e.deploy(ctx, simulator.Population{Seed: 1, Apps: []string{benchApp}, Devices: b.Devices}, startNginx)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	if err := d.serveAll(ctx); err != nil {
		return nil, err
	}
	l := &latency{Latency: Latency(b), deployment: d, to: []marked{onAPNs, onWebPush}}
	if err := l.enrol(ctx); err != nil {
		return nil, err
	}
	// Connections, tokens, and a Kafka that has compiled nothing yet.
	if _, err := l.blast(ctx); err != nil {
		return nil, err
	}
	const blast, idle = "during a blast", "idle"
	c := &contest{unit: "ms, p99", rounds: b.Rounds, env: e, sides: []side{{blast, l.blast}, {idle, l.idle}}}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	r := c.result("urgent", goal{of: byValue, against: idle, most: 1.5})
	r.Note = e.kind() + "; arrivals are known to 1 ms"
	return r, nil
}
