package health

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// watchEvery is how often the watcher looks, and watchTimeout how long it waits for Kafka.
	watchEvery   = 5 * time.Second
	watchTimeout = 4 * time.Second
	// standsAfter is how long the registry may apply nothing while there is something to apply.
	standsAfter = 30 * time.Second
)

// lane is a platform and a class.
type lane struct {
	platform pb.Platform
	class    pb.Class
}

// watcher asks Kafka about those who should tell and may not be there: what waits for lanes that no process runs and for rules that
// no process knows, and whether the registry gets on.
type watcher struct {
	kafka  *stream.Kafka
	client *kgo.Client
	lanes  *lanes.View
	lag    *registry.Lag // nil where nothing here needs the registry
	// counts is whether what waits is counted, which may take reading it.
	counts bool
	// Only look uses these.
	meters map[lane]*stream.Meter // of lanes that nobody runs
	rules  map[pb.Platform]*stream.Meter

	mu      sync.Mutex // guards what follows
	err     error      // of the last look
	backlog map[lane]int64
	held    map[pb.Platform]int64
	// standing is since when the registry has applied nothing of what waits; zero while it gets on.
	standing time.Time
	waiting  int64
}

func newWatcher(k *stream.Kafka, client *kgo.Client, v *lanes.View) *watcher {
	return &watcher{
		kafka: k, client: client, lanes: v,
		meters: map[lane]*stream.Meter{}, rules: map[pb.Platform]*stream.Meter{}, backlog: map[lane]int64{}, held: map[pb.Platform]int64{},
	}
}

// run looks until ctx is done.
func (w *watcher) run(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-w.lanes.Ready(): // what is fresh is known then
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C: // at first, too: lanes that have just begun tell of themselves a moment later
		}
		w.look(ctx, time.Now())
	}
}

func (w *watcher) look(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	var backlog map[lane]int64
	var held map[pb.Platform]int64
	var waiting int64
	var moved bool
	var err error
	if w.counts {
		if backlog, err = w.measure(ctx); err == nil {
			held, err = w.measureHeld(ctx)
		}
	}
	if err == nil && w.lag != nil {
		waiting, moved, err = w.lag.Read(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err != nil {
		w.standing = time.Time{}
		return // what was known before is not known any more: see unknown
	}
	w.backlog, w.held, w.waiting = backlog, held, waiting
	switch {
	case waiting == 0 || moved:
		w.standing = time.Time{}
	case w.standing.IsZero():
		w.standing = now
	}
}

// measure counts what waits for lanes that nobody runs.
func (w *watcher) measure(ctx context.Context) (map[lane]int64, error) {
	run := map[lane]bool{}
	for _, s := range w.lanes.Fresh() {
		run[lane{s.Platform, s.Class}] = true
	}
	backlog := map[lane]int64{}
	for _, p := range schemas.Platforms {
		for _, c := range schemas.Classes {
			name := lane{p, c}
			if run[name] {
				delete(w.meters, name)
				continue
			}
			if w.meters[name] == nil {
				w.meters[name] = stream.NewMeter(w.kafka, w.client, schemas.LaneRole(p, c), schemas.TopicSend(p, c))
			}
			r, err := w.meters[name].Read(ctx)
			if err != nil {
				return nil, fmt.Errorf("count what waits for %s: %w", schemas.LaneRole(p, c), err)
			}
			backlog[name] = r.Backlog
		}
	}
	return backlog, nil
}

// measureHeld counts the events that wait for a process that knows the rules of their app.
func (w *watcher) measureHeld(ctx context.Context) (map[pb.Platform]int64, error) {
	held := map[pb.Platform]int64{}
	for _, p := range schemas.Platforms {
		if w.rules[p] == nil {
			w.rules[p] = stream.NewMeter(w.kafka, w.client, schemas.HoldRole(p), schemas.TopicHeld(p))
		}
		r, err := w.rules[p].Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("count the events that wait for their rules: %w", err)
		}
		if r.Backlog > 0 {
			held[p] = r.Backlog
		}
	}
	return held, nil
}

// unknown is why nothing can be said of the lanes, or nil.
func (w *watcher) unknown() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if refused := w.kafka.Refuses(); refused != nil { // lanes that cannot write how they are fall silent
		return refused
	}
	return w.err
}

// stands is why the registry does not get on, or nil.
func (w *watcher) stands(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.standing.IsZero() || now.Sub(w.standing) < standsAfter {
		return nil
	}
	return fmt.Errorf("the registry has applied nothing for %v, and %d changes of devices wait for it: look whether the role registry runs, and at its log",
		now.Sub(w.standing).Round(time.Second), w.waiting)
}
