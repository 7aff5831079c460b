package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// queuedChunks is how many chunks of one partition may lie in the fair queue. It bounds what is done out of order
	// too, so that a partition's completion map always fits and no chunk is ever expanded twice.
	queuedChunks = 256
	// putBackAfter is how long the next chunks of a partition wait for room before its longest run has to make some.
	putBackAfter = 500 * time.Millisecond
	// putBackOld is when a chunk that may still not go is written again at the end. What stays in place holds its
	// partition's committed offset back, and a window spans so much and no more.
	putBackOld = 10 * time.Minute
	// heldDevices bounds the deliveries that are expanded and not committed: some 20 MB.
	heldDevices = 40_000
	// sessions is how many chunks of a platform are expanded at a time. More than there are cores: one waits for Redis, one
	// for the lock of its partition, and four were faster than one or two on two cores (docs/performance.md).
	sessions = 4
	// turn is how often a session looks whether gate or pace let the next chunk go.
	turn = 20 * time.Millisecond
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
	queued      map[int32]int // chunks in the queue, by partition
	assignments map[int32]uint64
	emitted     map[int32][]int64 // see uncommitted
	expanding   int64             // devices, estimated
	began       began
}

func newExpander(p pb.Platform, f *Fanout) *expander {
	name := "fanout.expander." + schemas.PlatformName(p)
	log := f.o.Kafka.Log.With("role", name)
	e := &expander{
		platform: p, campaigns: f.campaigns, lanes: f.lanes, control: f.control, registry: f.o.Registry,
		patience: &patience{log: log}, log: log, now: f.o.Now,
		queued: map[int32]int{}, assignments: map[int32]uint64{}, emitted: map[int32][]int64{}, began: began{},
	}
	e.pace = &pacer{platform: p, share: e.share, buckets: map[string]*bucket{}}
	e.gate = &gate{
		kafka: f.o.Kafka, platform: p, lanes: f.lanes.Fresh, budget: f.o.Budget, uncommitted: e.waiting,
		patience: &patience{log: log}, now: f.o.Now,
	}
	e.consumer = stream.NewConsumer(f.o.Kafka, stream.Options{
		Name:    name,
		Topics:  []string{schemas.TopicChunks(p)},
		Records: 8 * queuedChunks,
		Handle:  e.handle,
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

// handle queues chunks. While its partition has enough of them queued it waits, which holds back nothing but the chunks
// behind; but not for long: a run that is paused, slow or very large must not stand before those that came later. Then
// the run that has the most lets go of some, which are written again behind the others.
func (e *expander) handle(ctx context.Context, tasks []*stream.Task) {
	e.follow(ctx, tasks[0])
	for _, t := range tasks {
		if !e.room(ctx, t.Partition) {
			t.Release()
			continue
		}
		w, weight := e.read(ctx, t)
		if w != nil {
			e.push(w, weight)
		}
	}
}

// follow sees to it that a partition's chunks leave the queue with its assignment.
func (e *expander) follow(ctx context.Context, t *stream.Task) {
	partition, assignment := t.Partition, t.Assignment()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.assignments[partition] == assignment {
		return
	}
	e.assignments[partition] = assignment
	e.emitted[partition] = nil
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(e.queue.remove(func(w *work) bool {
			return w.task.Partition == partition && w.task.Assignment() == assignment
		}), func(w *work) { w.task.Release() })
	})
}

// drop ends chunks that were taken out of the queue without being expanded. mu is held.
func (e *expander) drop(ws []*work, end func(*work)) {
	for _, w := range ws {
		e.queued[w.task.Partition]--
		end(w)
	}
}

// room waits until one more chunk of the partition may be queued. It is false when ctx is over.
func (e *expander) room(ctx context.Context, partition int32) bool {
	limit := time.NewTimer(putBackAfter)
	defer limit.Stop()
	for {
		e.mu.Lock()
		full := e.queued[partition] >= queuedChunks
		e.mu.Unlock()
		if !full || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-limit.C:
			e.putBack(partition)
		case <-time.After(turn):
		}
	}
}

// putBack writes half of a partition's chunks again at its end, those of the runs that have the most there.
func (e *expander) putBack(partition int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for left := queuedChunks / 2; left > 0; {
		ws := e.queue.longest(partition, left)
		if len(ws) == 0 {
			return
		}
		left -= len(ws)
		e.drop(ws, again)
	}
}

// putBackStale does the same with chunks that have been queued for long, wherever they lie.
func (e *expander) putBackStale(ctx context.Context) error {
	tick := time.NewTicker(putBackOld / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			e.mu.Lock()
			e.drop(e.queue.remove(func(w *work) bool { return now.Sub(w.since) > putBackOld }), again)
			e.mu.Unlock()
		}
	}
}

// again ends a chunk by writing it again.
func again(w *work) {
	w.task.Done(stream.Output{Topic: w.task.Topic, Key: w.task.Key, Value: w.task.Value})
}

// read decodes a chunk and finds its campaign. A chunk that cannot be expanded it ends, and returns nil.
func (e *expander) read(ctx context.Context, t *stream.Task) (*work, uint32) {
	dead := schemas.TopicDead(e.platform)
	c := &pb.Chunk{}
	err := proto.Unmarshal(t.Value, c)
	if err == nil {
		err = e.fault(c)
	}
	if err != nil {
		t.Done(t.DeadLetter(dead, "undecodable", err.Error()))
		return nil, 0
	}
	run := c.App + "/" + c.Run
	known := e.campaigns.get(run)
	if known == nil {
		if e.campaigns.catchUp(ctx) != nil {
			t.Release()
			return nil, 0
		}
		known = e.campaigns.get(run)
	}
	if known == nil {
		err := fmt.Errorf("there is no campaign %s", run)
		t.Done(t.DeadLetter(dead, "unknown-run", err.Error()), e.count(c, 0))
		return nil, 0
	}
	return &work{ctx: ctx, task: t, chunk: c, run: run, since: time.Now()}, known.Weight
}

func (e *expander) fault(c *pb.Chunk) error {
	switch {
	case c.App == "" || c.Run == "":
		return errors.New("the chunk names no app or run")
	case c.Platform != e.platform:
		return fmt.Errorf("the chunk is of platform %q", schemas.PlatformName(c.Platform))
	case c.EndShard > schemas.Shards || c.FirstShard > c.EndShard:
		return fmt.Errorf("the chunk's shards [%d, %d) are not in [0, %d)", c.FirstShard, c.EndShard, schemas.Shards)
	}
	return nil
}

func (e *expander) push(w *work, weight uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.ctx.Err() != nil {
		w.task.Release()
		return
	}
	e.queue.push(w, weight)
	e.queued[w.task.Partition]++
}

// session expands one chunk after the other.
func (e *expander) session(ctx context.Context) error {
	var outs []stream.Output // used again for each chunk
	for {
		if w := e.take(); w != nil {
			planned := e.expand(w, &outs)
			e.expanded(w, planned)
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
	e.began.note(w.run, now)
	e.queued[w.task.Partition]--
	e.expanding += int64(w.chunk.Estimate)
	e.gate.begin(int64(w.chunk.Estimate))
	if c := e.campaigns.get(w.run); c != nil && !over(c.Campaign, now) {
		e.pace.pay(c.Campaign, w.cost(), now)
		e.gate.spend(int64(w.chunk.Estimate), now)
	}
	return w
}

// ready says whether a chunk may go now. Those of a run that is over may always: they become nothing.
func (e *expander) ready(w *work, open bool, now time.Time) bool {
	c := e.campaigns.get(w.run)
	switch {
	case c == nil || over(c.Campaign, now):
		return true
	case !open || c.State != pb.CampaignState_CAMPAIGN_STATE_RUNNING:
		return false
	}
	return !e.held(c.App) && !shut(e.lanes.Fresh(), c.App, e.platform) && e.pace.ready(c.Campaign, w.cost(), now)
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

// expanded settles what take booked, now that it is known what the chunk became.
func (e *expander) expanded(w *work, planned int64) {
	e.gate.done(int64(w.chunk.Estimate), planned)
	if c := e.campaigns.get(w.run); c != nil {
		e.pace.pay(c.Campaign, float64(planned)-w.cost(), e.now())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expanding -= int64(w.chunk.Estimate)
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

// count is what the ledger hears of a chunk.
func (e *expander) count(c *pb.Chunk, planned int) stream.Output {
	return stream.Output{
		Topic: schemas.TopicResults(e.platform),
		Key:   schemas.Key(c.App, c.Run),
		Value: schemas.AppendExpanded(nil, &pb.Expanded{Chunk: c.Index, Total: c.Total, Planned: uint32(planned)}),
		Mode:  stream.Append,
	}
}
