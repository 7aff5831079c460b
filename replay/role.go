package replay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// maxReading is how many replays of a platform read at the same time; each may hold some 10 MB.
	maxReading = 4
	// A paused replay holds its step, which pins the group's offset. So the step is written anew from time to time.
	holdFor = time.Minute
	// What one step may send and read, and how long it reads.
	maxStep  = 4000
	maxBytes = 4 << 20
	maxRead  = 200_000
	stepTime = time.Second
)

// Role runs replays. A platform's never wait for another's.
type Role struct {
	asked   *letters.Asked
	workers []*worker
}

// New makes the role. It starts with Run.
func New(k *stream.Kafka) *Role {
	r := &Role{asked: letters.NewAsked(k)}
	for _, p := range schemas.Platforms {
		r.workers = append(r.workers, newWorker(k, p, r.asked))
	}
	return r
}

// Run runs replays until ctx is done. What is under way goes on in whoever has the role next. Run it once.
func (r *Role) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.asked.Run(ctx) })
	for _, w := range r.workers {
		group.Go(func() error { return w.run(ctx) })
	}
	return group.Wait()
}

// worker runs the replays of one platform.
type worker struct {
	k        *stream.Kafka
	platform pb.Platform
	asked    *letters.Asked
	log      *slog.Logger
	consumer *stream.Consumer
	reading  chan struct{}
	steps    sync.WaitGroup
	// term is used by the consumer's one goroutine only.
	term *term
}

// term is what a worker knows for as long as it has the partition.
type term struct {
	assignment uint64
	history    *letters.History

	mu   sync.Mutex
	jobs map[string]*job // by app/id
}

func newWorker(k *stream.Kafka, p pb.Platform, asked *letters.Asked) *worker {
	name := "replay." + schemas.PlatformName(p)
	w := &worker{
		k: k, platform: p, asked: asked, log: k.Log.With("part", name), reading: make(chan struct{}, maxReading),
	}
	w.consumer = stream.NewConsumer(k, stream.Options{
		Name: name, Topics: []string{schemas.TopicReplays(p)}, Records: 1024, Handle: w.handle,
	})
	return w
}

func (w *worker) run(ctx context.Context) error {
	defer w.steps.Wait()
	return w.consumer.Run(ctx)
}

// handle begins steps. Each takes as long as its replay's rate wants, so each has a goroutine.
func (w *worker) handle(ctx context.Context, tasks []*stream.Task) {
	t, err := w.begin(ctx, tasks[0].Assignment())
	if err != nil { // ctx is over
		stream.Release(tasks)
		return
	}
	for _, task := range tasks {
		w.steps.Go(func() { w.step(ctx, t, task) })
	}
}

// begin reads what replays have done, when the partition is new. Its former owner can add nothing any more: the offsets
// of this one were not given out before the other's last transaction had ended.
func (w *worker) begin(ctx context.Context, assignment uint64) (*term, error) {
	if w.term != nil && w.term.assignment == assignment {
		return w.term, nil
	}
	t := &term{assignment: assignment, jobs: map[string]*job{}}
	err := w.insist(ctx, "read what replays have done", func() error {
		t.history = letters.NewHistory()
		ranges, err := letters.Span(ctx, w.k, 0, schemas.TopicReplays(w.platform))
		if err != nil {
			return err
		}
		return letters.Scan(ctx, w.k, ranges, func(r *kgo.Record) bool {
			if err := t.history.Apply(r.Value); err != nil {
				w.log.Error("a replay's step cannot be read; what it sent may be sent again", "partition", r.Partition, "offset", r.Offset, "err", err)
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	w.term = t
	w.steps.Go(func() {
		<-ctx.Done()
		t.close()
	})
	return t, nil
}

// insist tries until it succeeds or ctx ends, for what fails only when Kafka is away.
func (w *worker) insist(ctx context.Context, what string, do func() error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.log.Warn("could not "+what+", and tries again", "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// job is a replay that this process runs on one platform.
type job struct {
	mu        sync.Mutex // held by the step under way
	selection *letters.Selection
	// left is the progress that the last step left, which selection stands at.
	left *pb.ReplayProgress
	// next is when the rate lets more go.
	next time.Time
}

func (t *term) job(app, id string) *job {
	key := string(schemas.Key(app, id))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.jobs[key] == nil {
		t.jobs[key] = &job{}
	}
	return t.jobs[key]
}

// close waits for the steps under way, which have seen the same context end.
func (t *term) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		j.mu.Lock()
		j.close()
		j.mu.Unlock()
	}
}

// close lets go of the selection. j.mu is held.
func (j *job) close() {
	if j.selection != nil {
		j.selection.Close()
		j.selection = nil
	}
}
