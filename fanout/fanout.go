package fanout

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// defaultBudget is how much of a lane's drain may lie on its send topic: little, for what lies there goes in its order, and
// a small campaign would wait behind it.
const defaultBudget = 5 * time.Second

// Options say what a Fanout works on.
type Options struct {
	Kafka    *stream.Kafka
	Registry *registry.Registry
	// Budget bounds a lane's backlog, in the time that the lane takes to drain it. 0 means 5 s.
	Budget time.Duration
	// Now is time.Now when nil.
	Now func() time.Time
}

// Fanout is the role: launcher and scheduler, and for each platform an expander. Any number of instances share the work.
type Fanout struct {
	o         Options
	campaigns *campaigns
	lanes     *lanes.View
	control   *control.View
	launcher  *launcher
	scheduler *scheduler
	expanders map[pb.Platform]*expander
}

// New makes the role.
func New(o Options) *Fanout {
	if o.Budget == 0 {
		o.Budget = defaultBudget
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Fanout{
		o: o, campaigns: newCampaigns(o.Kafka), lanes: lanes.NewView(o.Kafka, o.Now), control: control.NewView(o.Kafka),
		expanders: map[pb.Platform]*expander{},
	}
	f.launcher = newLauncher(f)
	f.scheduler = &scheduler{
		kafka: o.Kafka, campaigns: f.campaigns, now: o.Now,
		patience: &patience{kafka: o.Kafka, log: o.Kafka.Log}, asked: map[string]time.Time{},
	}
	for _, p := range schemas.Platforms {
		f.expanders[p] = newExpander(p, f)
	}
	return f
}

// Run works until ctx is done. It reads campaigns, lanes and control to their ends before it takes anything.
func (f *Fanout) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.campaigns.view.Run(ctx) })
	group.Go(func() error { return f.lanes.Run(ctx) })
	group.Go(func() error { return f.control.Run(ctx) })
	group.Go(func() error { return f.launcher.consumer.Run(ctx) })
	group.Go(func() error { return f.scheduler.run(ctx) })
	for _, e := range f.expanders {
		group.Go(func() error { return e.run(ctx) })
	}
	return group.Wait()
}

// ready are the views that all of it leans on, at their ends.
func (f *Fanout) ready() []<-chan struct{} {
	return []<-chan struct{}{f.campaigns.view.Ready(), f.lanes.Ready(), f.control.Ready()}
}
