package bench

import (
	"context"

	"github.com/belfry/belfry/simulator"
)

// Urgent measures the time from an API call for a transactional message to its request at the provider, on APNs and on web
// push in turns, with nothing else to do and during a blast over all platforms in the same app, on the same credentials and
// destinations. Each role is in a process of its own, or with others of its kind: see [Latency], which asks the same of APNs
// alone.
type Urgent Latency

// Run implements Bench.
func (b Urgent) Run(ctx context.Context, e *Env) (_ Report, err error) {
	l, err := Latency(b).open(ctx, e, simulator.Mix{}, onAPNs, onWebPush)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, l.close) }()
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
	r.Note = l.note(e)
	return r, nil
}
