package fanout

import (
	"context"
	"slices"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// fairQueue hands out chunks so that apps share a lane evenly, and the campaigns of an app by their weights, whatever
// lies in the queue first or most. It is start-time fair queueing (Goyal, Vin and Cheng 1996) on two levels: an app, and
// within it a run, has a virtual start time that moves on by what it was served, over its weight; the earliest is served
// next, and its start is what the queue's clock shows. Who arrives, or was held up, starts at the clock: neither behind
// those who were served much, nor with a claim to the time when it was not there. So a small campaign that comes behind
// a blast is served next, and done when its own devices are.
//
// fairQueue does no locking; its expander does.
type fairQueue struct {
	apps  []*fairApp
	clock float64
}

type fairApp struct {
	name  string
	runs  []*fairRun
	start float64
	clock float64
	held  bool
}

type fairRun struct {
	key    string // app/run
	weight float64
	start  float64
	held   bool
	chunks []*work
}

// work is a chunk that waits to be expanded.
type work struct {
	// ctx is over when the chunk's partition goes away.
	ctx   context.Context
	task  *stream.Task
	chunk *pb.Chunk
	// run is the campaign's key.
	run string
	// since is when it was queued.
	since time.Time
}

// cost is what fair order and pace count with until the chunk is expanded: the devices it held at launch.
func (w *work) cost() float64 { return float64(max(1, w.chunk.Estimate)) }

func (q *fairQueue) empty() bool { return len(q.apps) == 0 }

// push puts a chunk behind its run's others.
func (q *fairQueue) push(w *work, weight uint32) {
	a := find(q.apps, func(a *fairApp) bool { return a.name == w.chunk.App })
	if a == nil {
		a = &fairApp{name: w.chunk.App, start: q.clock}
		q.apps = append(q.apps, a)
	}
	r := find(a.runs, func(r *fairRun) bool { return r.key == w.run })
	if r == nil {
		r = &fairRun{key: w.run, weight: float64(max(1, weight)), start: a.clock}
		a.runs = append(a.runs, r)
	}
	r.chunks = append(r.chunks, w)
}

func find[T any](list []*T, is func(*T) bool) *T {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i]
	}
	return nil
}

// next takes the chunk whose turn it is among the runs that ready lets go, which it asks about each run's first. It
// returns nil when there is none.
func (q *fairQueue) next(ready func(*work) bool) *work {
	var app *fairApp
	var run *fairRun
	for _, a := range q.apps {
		r := a.first(ready)
		if r == nil {
			a.held = true
			continue
		}
		if a.held {
			a.held, a.start = false, max(a.start, q.clock)
		}
		if app == nil || a.start < app.start {
			app, run = a, r
		}
	}
	if app == nil {
		return nil
	}
	w := run.chunks[0]
	run.chunks[0] = nil
	run.chunks = run.chunks[1:]
	q.clock, app.clock = app.start, run.start
	app.start += w.cost()
	run.start += w.cost() / run.weight
	q.tidy()
	return w
}

func (a *fairApp) first(ready func(*work) bool) *fairRun {
	var best *fairRun
	for _, r := range a.runs {
		if len(r.chunks) == 0 {
			continue
		}
		if !ready(r.chunks[0]) {
			r.held = true
			continue
		}
		if r.held {
			r.held, r.start = false, max(r.start, a.clock)
		}
		if best == nil || r.start < best.start {
			best = r
		}
	}
	return best
}

// tidy forgets who has nothing queued and no turn to make up for.
func (q *fairQueue) tidy() {
	for _, a := range q.apps {
		a.runs = slices.DeleteFunc(a.runs, func(r *fairRun) bool { return len(r.chunks) == 0 && r.start <= a.clock })
	}
	idle := !slices.ContainsFunc(q.apps, (*fairApp).waits)
	q.apps = slices.DeleteFunc(q.apps, func(a *fairApp) bool { return !a.waits() && (idle || a.start <= q.clock) })
}

func (a *fairApp) waits() bool {
	return slices.ContainsFunc(a.runs, func(r *fairRun) bool { return len(r.chunks) > 0 })
}

// remove takes out what match says, in no particular order.
func (q *fairQueue) remove(match func(*work) bool) []*work {
	var out []*work
	for _, a := range q.apps {
		for _, r := range a.runs {
			r.chunks = slices.DeleteFunc(r.chunks, func(w *work) bool {
				if match(w) {
					out = append(out, w)
					return true
				}
				return false
			})
		}
	}
	q.tidy()
	return out
}

// longest takes the last n chunks that the run with the most chunks on a partition has there.
func (q *fairQueue) longest(partition int32, n int) []*work {
	count := map[string]int{}
	run := ""
	for _, a := range q.apps {
		for _, r := range a.runs {
			for _, w := range r.chunks {
				if w.task.Partition == partition {
					count[r.key]++
				}
			}
			if run == "" || count[r.key] > count[run] {
				run = r.key
			}
		}
	}
	skip := count[run] - n
	return q.remove(func(w *work) bool {
		if w.run != run || w.task.Partition != partition {
			return false
		}
		skip--
		return skip < 0
	})
}
