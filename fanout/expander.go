package fanout

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// heldDevices bounds the deliveries that are expanded and not committed: some 20 MB.
	heldDevices = 40_000
	// sessions is how many chunks of a platform are expanded at a time. More than there are cores: one waits for Redis, one
	// for the lock of its partition, and four were faster than one or two on two cores (docs/performance.md).
	sessions = 4
	// turn is how often a session looks whether gate or pace let the next chunk go.
	turn = 20 * time.Millisecond
	// outlookLife is for how long what lanes say of their destinations is not read again. They speak once a second.
	outlookLife = 200 * time.Millisecond
)

// expander turns one platform's chunks into deliveries. Chunks go from the topic into a fair queue; sessions take the
// next that its campaign's state and pace, and the lane's gate, let go, and end it with all of its deliveries and their
// count, or with nothing.
type expander struct {
	platform  pb.Platform
	consumer  *stream.Consumer
	campaigns *campaigns
	lanes     *lanes.View
	control   *control.View
	registry  *registry.Registry
	gate      *gate
	pace      *pacer
	patience  *patience
	log       *slog.Logger
	now       func() time.Time
	// owned is how many partitions this instance has.
	owned atomic.Int32

	mu          sync.Mutex // guards all below
	queue       fairQueue
	queued      map[int32]stock // by partition
	assignments map[int32]uint64
	emitted     map[int32][]int64 // see uncommitted
	expanding   int64             // devices, estimated
	began       began
	tastes      tastes
	outlook     outlook
	outlooked   time.Time
}

func newExpander(p pb.Platform, f *Fanout) *expander {
	name := "fanout.expander." + schemas.PlatformName(p)
	log := f.o.Kafka.Log.With("role", name)
	e := &expander{
		platform: p, campaigns: f.campaigns, lanes: f.lanes, control: f.control, registry: f.o.Registry,
		patience: &patience{kafka: f.o.Kafka, log: log}, log: log, now: f.o.Now,
		queued: map[int32]stock{}, assignments: map[int32]uint64{}, emitted: map[int32][]int64{}, began: began{}, tastes: tastes{},
	}
	e.pace = &pacer{platform: p, share: e.share, buckets: map[string]*bucket{}}
	e.gate = &gate{
		kafka: f.o.Kafka, platform: p, lanes: f.lanes.Fresh, budget: f.o.Budget, uncommitted: e.waiting,
		patience: &patience{kafka: f.o.Kafka, log: log}, now: f.o.Now,
	}
	e.consumer = stream.NewConsumer(f.o.Kafka, stream.Options{
		Name:    name,
		Topics:  []string{schemas.TopicChunks(p)},
		Records: 8 * queuedChunks,
		Handle:  e.handle,
		After:   f.ready(),
	})
	return e
}

// run ends when ctx does and every session has let go of its chunk.
func (e *expander) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.consumer.Run(ctx) })
	group.Go(func() error { return e.gate.run(ctx) })
	group.Go(func() error { return e.putBackStale(ctx) })
	for range sessions {
		group.Go(func() error { return e.session(ctx) })
	}
	return group.Wait()
}

// session expands one chunk after the other.
func (e *expander) session(ctx context.Context) error {
	var outs []stream.Output // used again for each chunk
	for {
		if w := e.take(); w != nil {
			planned, waiting := e.expand(w, &outs)
			e.expanded(w, planned, waiting)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(turn):
		}
	}
}

// take removes the next chunk from the queue, if any may go now, and books it as being expanded.
func (e *expander) take() *work {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queue.empty() {
		return nil
	}
	open, ajar := e.gate.state(now)
	room := e.expanding+e.uncommitted() < heldDevices
	w := e.queue.next(func(w *work) bool {
		return e.ready(w, room && (open || ajar && e.began.newcomer(w.run)), now)
	})
	if w == nil {
		return nil
	}
	w.newcomer = e.began.newcomer(w.run)
	e.began.note(w.run, now)
	w.taste = 0
	if len(e.destinations(w.chunk.App, now)) > 0 && e.tastes.due(w.run, now) {
		w.taste = tasteOf
		e.tastes.note(w.run, now)
	}
	e.count(w, -1)
	e.expanding += int64(w.chunk.Estimate)
	e.gate.begin(int64(w.chunk.Estimate))
	if c := e.campaigns.get(w.run); c != nil && !over(c.Campaign, now) {
		e.pace.pay(c.Campaign, w.cost(), now)
		e.gate.spend(int64(w.chunk.Estimate), now)
	}
	return w
}

// destinations are those of an app that has any which take no more. mu is held.
func (e *expander) destinations(app string, now time.Time) destinations {
	if now.Sub(e.outlooked) >= outlookLife {
		e.outlook, e.outlooked = newOutlook(e.lanes.Fresh(), e.platform), now
	}
	return e.outlook[app]
}

// ready says whether a chunk may go now. Those of a run that is over may always: they become nothing. mu is held.
func (e *expander) ready(w *work, open bool, now time.Time) bool {
	c := e.campaigns.get(w.run)
	switch {
	case c == nil || over(c.Campaign, now):
		return true
	case !open || c.State != pb.CampaignState_CAMPAIGN_STATE_RUNNING:
		return false
	}
	return !e.held(c.App) && e.destinations(c.App, now).lets(w.chunk, e.tastes.due(w.run, now)) && e.pace.ready(c.Campaign, w.cost(), now)
}

// share is this instance's part of the platform's rates: the part of the chunk partitions that it owns.
func (e *expander) share() float64 {
	all := e.gate.chunkPartitions()
	if all == 0 {
		return 0
	}
	return min(1, float64(e.owned.Load())/float64(all))
}

// held says that an operator has paused the lane or the app: its chunks wait, so that they need not wait as deliveries.
func (e *expander) held(app string) bool {
	return e.control.Get(control.Lane(e.platform, pb.Class_CLASS_BULK)).GetPaused() || e.control.Get(control.App(app)).GetPaused()
}

// expanded settles what take booked, now that it is known what the chunk became, and how many of its devices wait for their
// destinations. A chunk of which nothing else came goes back into the queue.
func (e *expander) expanded(w *work, planned int64, waiting int) {
	now := e.now()
	e.gate.done(int64(w.chunk.Estimate), planned)
	e.gate.spend(-int64(min(waiting, int(w.chunk.Estimate))), now)
	if c := e.campaigns.get(w.run); c != nil {
		e.pace.pay(c.Campaign, float64(planned)-w.cost(), now)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expanding -= int64(w.chunk.Estimate)
	if w.taste == tasteOf { // there was nothing to taste
		delete(e.tastes, w.run)
	}
	barren := planned == 0 && waiting > 0
	e.queue.looked(w, waiting, barren)
	if barren {
		if w.newcomer {
			e.began.forget(w.run)
		}
		e.enqueue(w)
		return
	}
	if e.assignments[w.task.Partition] == w.task.Assignment() {
		e.emitted[w.task.Partition] = append(e.emitted[w.task.Partition], planned)
	}
}

// waiting is uncommitted for who does not hold mu.
func (e *expander) waiting() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.uncommitted()
}

// uncommitted is how many deliveries are done and wait for their commit. A commit covers all that is done when it begins,
// so of each partition it is the last chunks that wait, as many as its window says. mu is held.
func (e *expander) uncommitted() int64 {
	var n int64
	stats := e.consumer.Stats()
	e.owned.Store(int32(len(stats)))
	for _, s := range stats {
		of := e.emitted[s.Partition]
		of = of[max(0, len(of)-(s.Held-s.Unfinished)):]
		for _, planned := range of {
			n += planned
		}
		e.emitted[s.Partition] = of
	}
	return n
}

// tell is what the ledger hears of a chunk. partial says that there is more of it.
func (e *expander) tell(c *pb.Chunk, planned int, partial bool) stream.Output {
	return stream.Output{
		Topic: schemas.TopicResults(e.platform),
		Key:   schemas.Key(c.App, c.Run),
		Value: schemas.AppendExpanded(nil, &pb.Expanded{Chunk: c.Index, Total: c.Total, Planned: uint32(planned), Partial: partial}),
		Mode:  stream.Append,
	}
}
