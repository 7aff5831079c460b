package bench

import (
	"context"
	"time"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
)

// Scene is a measurement of what one part of the traffic does to another, on a [Stage].
type Scene interface {
	// Population is whom the simulator must know. None of them is registered yet when Run is called.
	Population() simulator.Population
	// Run measures. The Report can be marshalled to JSON.
	Run(ctx context.Context, s *Stage) (Report, error)
}

// Staged is the Bench of a Scene.
type Staged struct{ Scene }

// Run implements Bench.
func (s Staged) Run(ctx context.Context, e *Env) (_ Report, err error) {
	on := &Stage{Receipts: &Receipts{}}
	providers, err := e.simulated(simulator.Options{Population: s.Population(), Accepted: on.Receipts.Accepted})
	if err != nil {
		return nil, err
	}
	if on.deployment, err = e.deployTo(ctx, providers); err != nil {
		return nil, err
	}
	defer func() { err = joined(err, on.close) }()
	if err := on.serveAll(ctx); err != nil {
		return nil, err
	}
	return s.Scene.Run(ctx, on)
}

// Stage is Belfry with all its roles, in processes of their own, and simulated providers in this one.
type Stage struct {
	*deployment
	// Receipts are told of each delivery that the simulator accepts.
	Receipts *Receipts
}

// text is what every measurement sends: a title and a body with variables, as most do.
var text = message.Message{
	Title: `Hello {{ attributes.first_name | "there" }}`,
	Body:  `You are on level {{ attributes.level | "1" }}, and this came to you by {{ device.platform }}`,
	TTL:   "1h",
}

// deliveries are the ids of what a campaign sends to devices.
func deliveries(app, campaign string, devices []string) []simulator.ID {
	ids := make([]simulator.ID, len(devices))
	for i, d := range devices {
		ids[i] = schemas.DeliveryID(app, campaign, d, 0)
	}
	return ids
}

// pause waits, and is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
