package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/belfry/belfry/schemas"
)

// Scale measures what a push costs when two and four processes share a lane, against one.
type Scale struct {
	Lane
}

// Run implements Bench.
func (b Scale) Run(ctx context.Context, e *Env) (_ Report, err error) {
	d, err := e.deploy(ctx, b.population(), startNghttpd)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	l, err := b.side(ctx, d)
	if err != nil {
		return nil, err
	}
	c := &contest{unit: "pushes/s", rounds: b.Rounds, env: e}
	for _, n := range []int{4, 2, 1} {
		c.sides = append(c.sides, side{processes(n), func(ctx context.Context) (sample, error) {
			return l.run(ctx, func(ctx context.Context) (*lanes, error) { return l.outside(ctx, n) })
		}})
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	if err := l.verify(ctx); err != nil {
		return nil, err
	}
	r := c.result("scale",
		goal{of: byCPU, against: processes(1), most: 1.1},
		goal{of: byCPU, engine: processes(2), against: processes(1), most: 1.1})
	r.Note = e.kind() + "; all processes share this machine's cores"
	return r, nil
}

func processes(n int) string {
	if n == 1 {
		return "one process"
	}
	return fmt.Sprintf("%d processes", n)
}

// outside starts the lane in n processes of their own.
func (l *laneSide) outside(ctx context.Context, n int) (*lanes, error) {
	role := "senders." + schemas.PlatformName(l.Platform)
	var names []string
	var all []*process
	stop := func() error { return l.end(names...) }
	for i := range n {
		name := fmt.Sprintf("%s-%d", role, i+1)
		p, err := l.serve(ctx, name, role)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		names, all = append(names, name), append(all, p)
	}
	return &lanes{stop: stop, meter: func() (meter, error) { return newMeterOf(all, l.process) }}, nil
}
