package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// EndToEnd measures a campaign from its launch to its last outcome in the books, with each role in a process of its own,
// against the slowest of the stages when each runs alone on the same campaign: fan-out, each lane, ledger.
type EndToEnd struct {
	Devices, Rounds int
}

// stages are the processes that a campaign goes through, in its order. The API has one more.
var stages = []string{"fanout", "senders.apns", "senders.fcm", "senders.webpush", "ledger"}

// Run implements Bench.
func (b EndToEnd) Run(ctx context.Context, e *Env) (_ Report, err error) {
	d, err := e.peopled(ctx, b.Devices)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	r := &endToEnd{deployment: d, devices: b.Devices}
	if r.share, err = r.shares(); err != nil {
		return nil, err
	}
	c := &contest{unit: "pushes/s", rounds: b.Rounds, env: e, sides: []side{
		{"end to end", r.together}, {"slowest stage alone", r.alone},
	}}
	r.contest = c
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	for _, stage := range stages {
		c.parts = append(c.parts, stage+" alone")
	}
	found := c.result("end-to-end", goal{of: byValue, against: "slowest stage alone", least: 0.5})
	found.Note = e.kind() + "; a stage's value is the campaign's deliveries over the time that its own share of them takes"
	return found, nil
}

type endToEnd struct {
	*deployment
	contest *contest
	devices int
	// share is how many of the devices are each lane's.
	share map[pb.Platform]int
	round int
}

func (r *endToEnd) shares() (map[pb.Platform]int, error) {
	counted, err := r.sim.Devices(benchApp)
	of := map[pb.Platform]int{}
	for _, p := range schemas.Platforms {
		for _, n := range counted[schemas.PlatformName(p)] {
			of[p] += n
		}
	}
	return of, err
}

// together runs a campaign through all stages at once.
func (r *endToEnd) together(ctx context.Context) (s sample, err error) {
	r.round++
	for _, stage := range stages {
		if _, err := r.serve(ctx, stage, stage); err != nil {
			return s, err
		}
	}
	if err := r.warm(ctx, fmt.Sprintf("warm-%d", r.round)); err != nil {
		return s, err
	}
	all := []*process{r.running["api"]}
	for _, stage := range stages {
		all = append(all, r.running[stage])
	}
	m, err := newMeterOf(all, r.process)
	if err != nil {
		return s, err
	}
	id := fmt.Sprintf("together-%d", r.round)
	if err := r.launch(ctx, benchApp, id, producer.Audience{Everyone: true}); err != nil {
		return s, err
	}
	if err := r.finish(ctx, benchApp, id, r.devices); err != nil {
		return s, err
	}
	if s, err = m.end(r.devices); err != nil {
		return s, err
	}
	return s, r.end(stages...)
}

// warmDevices are enough for every lane to have made its connection.
const warmDevices = 100

// warm sends a small campaign, for connections, provider tokens and group assignments.
func (d *deployment) warm(ctx context.Context, id string) error {
	ids := make([]string, warmDevices)
	for i := range ids {
		ids[i] = deviceID(i)
	}
	if err := d.launch(ctx, benchApp, id, producer.Audience{Devices: ids}); err != nil {
		return err
	}
	return d.finish(ctx, benchApp, id, len(ids))
}

// alone runs a campaign through one stage after the other, each alone.
func (r *endToEnd) alone(ctx context.Context) (all sample, err error) {
	r.round++
	id := fmt.Sprintf("alone-%d", r.round)
	var took []time.Duration
	add := func(stage string, s sample, share int) {
		whole := time.Duration(float64(share) / s.value * float64(time.Second))
		took = append(took, whole)
		s.value = float64(r.devices) / whole.Seconds()
		all.cpu += time.Duration(s.cpu.Seconds() / s.ops * float64(share) * float64(time.Second))
		all.server += s.server
		r.contest.samples[stage+" alone"] = append(r.contest.samples[stage+" alone"], s)
	}
	s, err := r.fanoutAlone(ctx, id)
	if err != nil {
		return all, fmt.Errorf("fan-out alone: %w", err)
	}
	add("fanout", s, r.devices)
	for _, p := range schemas.Platforms {
		if s, err = r.laneAlone(ctx, p); err != nil {
			return all, fmt.Errorf("lane %s alone: %w", schemas.PlatformName(p), err)
		}
		add("senders."+schemas.PlatformName(p), s, r.share[p])
	}
	if s, err = r.ledgerAlone(ctx, id); err != nil {
		return all, fmt.Errorf("ledger alone: %w", err)
	}
	add("ledger", s, r.devices)
	all.ops, all.wall, all.allocs = float64(r.devices), slices.Max(took), noAllocs
	all.value = all.ops / all.wall.Seconds()
	return all, nil
}

func (r *endToEnd) fanoutAlone(ctx context.Context, id string) (s sample, err error) {
	if _, err := r.serve(ctx, "fanout", "fanout"); err != nil {
		return s, err
	}
	stop := r.pretend(ctx)
	s, err = r.expand(ctx, id, r.devices)
	return s, errors.Join(err, stop(), r.end("fanout"))
}

func (r *endToEnd) laneAlone(ctx context.Context, p pb.Platform) (s sample, err error) {
	name := "senders." + schemas.PlatformName(p)
	one, err := r.serve(ctx, name, name)
	if err != nil {
		return s, err
	}
	s, err = course{
		what: "backlog of " + name,
		read: func(ctx context.Context) (int, error) {
			return r.backlog(ctx, schemas.LaneRole(p, pb.Class_CLASS_BULK), schemas.TopicSend(p, pb.Class_CLASS_BULK))
		},
		// What stays are markers.
		enough:   func(now int) bool { return now < 100+r.share[p]/100 },
		measured: []*process{one}, server: r.process,
	}.run(ctx)
	return s, errors.Join(err, r.end(name))
}

// ledgerAlone is also the proof that all stages before it did their work.
func (r *endToEnd) ledgerAlone(ctx context.Context, id string) (s sample, err error) {
	one, err := r.serve(ctx, "ledger", "ledger")
	if err != nil {
		return s, err
	}
	s, err = course{
		what: "outcomes in the books",
		read: func(ctx context.Context) (int, error) {
			p, err := r.progress(ctx, benchApp, id)
			return int(p.Accepted), err
		},
		enough:   func(now int) bool { return now == r.devices },
		measured: []*process{one},
	}.run(ctx)
	return s, errors.Join(err, r.end("ledger"))
}
