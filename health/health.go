// Package health tells whether a process gets on, whatever its roles, and what the operators of the whole should look at.
package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// pingTimeout bounds all questions that Ready asks.
const pingTimeout = 2 * time.Second

// Options of a Process.
type Options struct {
	Kafka *stream.Kafka
	// Redis is nil where no role here needs the registry.
	Redis *registry.Redis
	// Peer is what this process was told, if others should be compared with it.
	Peer *pb.Peer
	// Counts has what waits for nobody counted all over the cluster, each five seconds: Held and Waits. It may take reading it.
	Counts bool
	Now    func() time.Time
}

// Process is how one process is, of all its roles together. Make it with New; it knows nothing before Run. It is safe for
// concurrent use.
type Process struct {
	o        Options
	client   *kgo.Client
	registry *registry.Registry // nil without Redis
	place    *registry.Place
	lanes    *lanes.View
	watcher  *watcher
}

// New makes one.
func New(o Options) (*Process, error) {
	client, err := o.Kafka.Client()
	if err != nil {
		return nil, fmt.Errorf("health: make the Kafka client: %w", err)
	}
	p := &Process{o: o, client: client, lanes: lanes.NewView(o.Kafka, o.Now)}
	p.watcher = newWatcher(o.Kafka, client, p.lanes)
	p.watcher.counts = o.Counts
	if o.Redis != nil {
		p.registry, p.place = registry.New(o.Redis), registry.NewPlace(o.Kafka)
		p.watcher.lag = registry.NewLag(o.Kafka, client)
	}
	return p, nil
}

// Run watches until ctx is done. Run it once.
func (p *Process) Run(ctx context.Context) error {
	defer p.client.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.lanes.Run(ctx) })
	if p.place != nil {
		g.Go(func() error { return p.place.Run(ctx) })
	}
	g.Go(func() error { p.watcher.run(ctx); return nil })
	return g.Wait()
}

// Lanes is what the lanes and processes say of themselves.
func (p *Process) Lanes() *lanes.View { return p.lanes }

// Ready is why the process does not get on, or nil: what it needs does not answer or is not what it should be, or something that
// it runs stands. Each line of the error is a reason, with its mend where that is known. It asks Kafka and Redis, for 2 s at most.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var kafka, redis error
	var both sync.WaitGroup // at once: one that is away must not take the other's time
	both.Go(func() {
		if stream.Ping(ctx, p.client) != nil {
			kafka = errors.New("no answer from Kafka")
		}
	})
	if p.o.Redis != nil {
		redis = p.redis(ctx)
	}
	both.Wait()
	return errors.Join(kafka, redis, p.watcher.stands(time.Now()), p.o.Kafka.Health())
}

// redis is why the registry cannot be read or kept, or nil.
func (p *Process) redis(ctx context.Context) error {
	if err := p.o.Redis.Ping(ctx).Err(); err != nil {
		return errors.New("no answer from Redis")
	}
	if err := p.o.Redis.Sound(ctx); err != nil {
		return err
	}
	if err := p.registry.Sound(ctx, p.place); err != nil {
		return err
	}
	select {
	case <-p.place.Ready():
		return nil
	default:
		return errors.New("still being read from Kafka: where the registry is")
	}
}

// Unknown is why nothing can be said of what waits, or nil.
func (p *Process) Unknown() error { return p.watcher.unknown() }

// Waits tells how many deliveries wait for a lane that nobody runs, if that is known.
func (p *Process) Waits(platform pb.Platform, c pb.Class) (n int64, known bool) {
	p.watcher.mu.Lock()
	defer p.watcher.mu.Unlock()
	n, known = p.watcher.backlog[lane{platform, c}]
	return n, known
}

// Held tells how many events on a platform wait for a process that knows the rules of their app.
func (p *Process) Held(platform pb.Platform) int64 {
	p.watcher.mu.Lock()
	defer p.watcher.mu.Unlock()
	return p.watcher.held[platform]
}

// Warnings are what an operator should look at, though this process gets on. They name no app: whoever asks how a process is
// may not know any. belfry lanes names them.
func (p *Process) Warnings() (warnings []string) {
	warn := func(n int, text string) {
		if n > 0 {
			warnings = append(warnings, fmt.Sprintf("%d %s: see belfry lanes", n, text))
		}
	}
	warn(p.destinations(pb.DestinationState_DESTINATION_STATE_BLOCKED), "destinations wait for a process that has their credential")
	warn(p.destinations(pb.DestinationState_DESTINATION_STATE_STOPPED), "destinations are stopped, since their credential is refused")
	for _, platform := range schemas.Platforms {
		for _, c := range schemas.Classes {
			if n, _ := p.Waits(platform, c); n > 0 {
				warn(int(n), "deliveries wait, and no process runs "+schemas.LaneRole(platform, c))
			}
		}
		warn(int(p.Held(platform)), "events wait on "+schemas.PlatformName(platform)+" for a process that knows their app's rules")
	}
	differ := 0
	for _, other := range p.lanes.Peers() {
		if p.o.Peer != nil && len(lanes.Differences(p.o.Peer, other.Peer)) > 0 {
			differ++
		}
	}
	warn(differ, "processes were told otherwise than this one")
	return warnings
}

// destinations counts those in a state, of all instances.
func (p *Process) destinations(state pb.DestinationState) int {
	found := map[string]bool{}
	for _, s := range p.lanes.Fresh() {
		for _, d := range s.Destinations {
			if d.State == state {
				found[string(schemas.Key(schemas.PlatformName(s.Platform), d.App, d.Name))] = true
			}
		}
	}
	return len(found)
}

// Sentences makes the lines of what Ready returned readable on one.
func Sentences(err error) string {
	var out []string
	for _, line := range strings.Split(err.Error(), "\n") {
		out = append(out, strings.ToUpper(line[:1])+line[1:]+".")
	}
	return strings.Join(out, " ")
}
