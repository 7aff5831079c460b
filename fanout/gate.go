package fanout

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// gateEvery is how often Kafka is asked for the lane's backlog, and gateLife how long its answer counts: without one
	// nothing more is expanded.
	gateEvery = 500 * time.Millisecond
	gateLife  = 5 * time.Second
	// gateFloor is the backlog that is always allowed: it gets an idle lane going, and tells how fast it drains.
	gateFloor = 20_000
	// keenness is how many times as fast as the lane drains more is expanded at most, though gateFloor a second always, once it
	// has half of the backlog that is allowed. As fast as it can, expansion takes every core, Kafka's too, and what somebody
	// waits for stands behind it; a lane with that much to do is no later for its being spread out.
	keenness = 2
)

// gate keeps a lane's backlog short: it is open while the lane would drain what is there within the budget, and in the upper
// half of that for no more than keenness times what it drains. What it
// holds back waits as chunks, where pausing and cancelling act at once and a stalled lane costs nothing.
type gate struct {
	kafka    *stream.Kafka
	platform pb.Platform
	lanes    func() []*pb.LaneStatus // those that count
	budget   time.Duration
	// uncommitted is how many deliveries are expanded and wait for their commit.
	uncommitted func() int64
	patience    *patience
	now         func() time.Time

	mu      sync.Mutex // guards all below
	backlog int64
	read    time.Time
	// expanding is an estimate of what is being expanded now.
	expanding int64
	// A reading shows what was committed when Kafka was asked. To it come the deliveries that waited for their commit just
	// before, and those expanded since. asking holds both for the reading that is under way. What its commit overtakes
	// is counted twice until the next reading, which is safe.
	waited, expanded int64
	asking           struct{ waited, expanded int64 }
	// partitions is how many the chunk topic has.
	partitions int
	// told is what was said last of what holds nothing.
	told struct{ void, inexact bool }
	// next is when one more chunk is due by the lane's drain.
	next time.Time
}

// state says whether more may be expanded, and whether there is at least room for newcomers: twice the backlog that closes the
// gate, at any pace.
func (g *gate) state(now time.Time) (open, ajar bool) {
	statuses := g.lanes()
	allowed := max(gateFloor, int64(g.budget.Seconds()*drainRate(statuses, g.platform)))
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.read) >= gateLife {
		return false, false
	}
	backlog := max(0, g.backlog-stuck(statuses, g.platform)) + g.waited + g.expanded + g.expanding
	due := backlog < allowed/2 || !now.Before(g.next)
	return backlog < allowed && due, backlog < 2*allowed
}

// spend notes when the next chunk is due, after one that is of so many deliveries.
func (g *gate) spend(estimate int64, now time.Time) {
	each := time.Duration(float64(time.Second) / max(keenness*drainRate(g.lanes(), g.platform), gateFloor))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next.Before(now) {
		g.next = now
	}
	g.next = g.next.Add(time.Duration(estimate) * each)
}

// begin counts a chunk that is being expanded, by its estimate; done counts what it became.
func (g *gate) begin(estimate int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expanding += estimate
}

func (g *gate) done(estimate, planned int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expanding -= estimate
	g.expanded += planned
	g.asking.expanded += planned
}

// ask begins a reading.
func (g *gate) ask() {
	g.mu.Lock()
	g.asking.expanded = 0
	g.mu.Unlock()
	waited := g.uncommitted() // after that, so that nothing falls between
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking.waited = waited
}

func (g *gate) reading(backlog int64, partitions int, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.backlog, g.read, g.partitions = backlog, now, partitions
	g.waited, g.expanded = g.asking.waited, g.asking.expanded
}

// chunkPartitions is how many partitions the platform's chunk topic has.
func (g *gate) chunkPartitions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.partitions
}

// run asks Kafka for the backlog twice a second. Each platform has a client of its own, so that none waits for another's.
func (g *gate) run(ctx context.Context) error {
	client, err := g.kafka.Client()
	if err != nil {
		return fmt.Errorf("gate of %s: %w", schemas.PlatformName(g.platform), err)
	}
	defer client.Close()
	lane := schemas.LaneRole(g.platform, pb.Class_CLASS_BULK)
	meter := stream.NewMeter(g.kafka, client, lane, schemas.TopicSend(g.platform, pb.Class_CLASS_BULK))
	tick := time.NewTicker(gateEvery)
	defer tick.Stop()
	for {
		what := "ask Kafka for the backlog of the lane " + schemas.PlatformName(g.platform) + "/bulk"
		if g.patience.try(ctx, what, func() error { return g.measure(ctx, client, meter) }) != nil {
			return nil // ctx is over
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// measure reads what the lane has not done.
func (g *gate) measure(ctx context.Context, client *kgo.Client, meter *stream.Meter) error {
	ctx, cancel := context.WithTimeout(ctx, gateLife)
	defer cancel()
	g.ask()
	chunks := g.kafka.Topic(schemas.TopicChunks(g.platform))
	topics, err := kadm.NewClient(client).ListTopics(ctx, chunks)
	if err != nil {
		return fmt.Errorf("look at topic %s: %w", chunks, err)
	}
	r, err := meter.Read(ctx)
	if err != nil {
		return err
	}
	g.tell(r)
	g.reading(r.Backlog, len(topics[chunks].Partitions), g.now())
	return nil
}

// tell says, once each, that offsets alone would hold back what the lane has room for, and that it could not be seen whether they
// do. g.run calls it.
func (g *gate) tell(r stream.Reading) {
	lane := schemas.PlatformName(g.platform) + "/bulk"
	if void := r.Void >= gateFloor; void != g.told.void {
		if g.told.void = void; void {
			g.kafka.Log.Info("aborted records lie before the lane; they count for nothing, and expansion goes on",
				"lane", lane, "aborted", r.Void, "backlog", r.Backlog)
		}
	}
	if r.Inexact != nil && r.Backlog >= gateFloor && !g.told.inexact {
		g.told.inexact = true
		g.kafka.Log.Warn("expansion is held back, and whether by records that count could not be seen: fanout needs to read the lane's topic",
			"lane", lane, "backlog", r.Backlog, "err", r.Inexact)
	} else if r.Inexact == nil {
		g.told.inexact = false
	}
}
