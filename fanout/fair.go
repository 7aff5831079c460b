package fanout

import (
	"context"
	"slices"
	"strings"
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
	// looks are the chunks under way of runs that nothing came of last.
	looks int
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
	// barren says that the last chunk that was looked at has only devices which wait for their destinations. Of such runs one
	// chunk at a time is looked at, lest those that something comes of wait for that.
	barren bool
	chunks []*work
	// aside are the chunks that wait for destinations, by their names: all of one list go when one of those takes more.
	aside map[string][]*work
}

// work is a chunk that waits to be expanded.
type work struct {
	// ctx is over when the chunk's partition goes away.
	ctx   context.Context
	task  *stream.Task
	chunk *pb.Chunk
	// run is the campaign's key.
	run string
	// partial says that the record has a rest: see work.rest.
	partial bool
	// weight is the campaign's.
	weight uint32
	// since is when it was queued.
	since time.Time
	// look says that it is one of fairQueue.looks, newcomer that it passes for the first of its run.
	look, newcomer bool
	// taste is how many of it may go to destinations that take nothing, and then how many of those did not: see tastes.
	taste int
}

// cost is what fair order and pace count with until the chunk is expanded: the devices it held at launch.
func (w *work) cost() float64 { return float64(max(1, w.chunk.Estimate)) }

// waits are the destinations that all of it waits for, together: "" when it is not known to wait.
func (w *work) waits() string { return strings.Join(w.chunk.Waits, " ") }

func (q *fairQueue) empty() bool { return len(q.apps) == 0 }

// push puts a chunk behind its run's others.
func (q *fairQueue) push(w *work) {
	a := find(q.apps, func(a *fairApp) bool { return a.name == w.chunk.App })
	if a == nil {
		a = &fairApp{name: w.chunk.App, start: q.clock}
		q.apps = append(q.apps, a)
	}
	r := find(a.runs, func(r *fairRun) bool { return r.key == w.run })
	if r == nil {
		r = &fairRun{key: w.run, weight: float64(max(1, w.weight)), start: a.clock}
		a.runs = append(a.runs, r)
	}
	if len(w.chunk.Waits) == 0 {
		r.chunks = append(r.chunks, w)
		return
	}
	if r.aside == nil {
		r.aside = map[string][]*work{}
	}
	names := w.waits()
	r.aside[names] = append(r.aside[names], w)
}

func find[T any](list []*T, is func(*T) bool) *T {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i]
	}
	return nil
}

// next takes the chunk whose turn it is among the runs that ready lets go, which it asks about the first of each run's, and of
// each run's that wait for the same. It returns nil when there is none.
func (q *fairQueue) next(ready func(*work) bool) *work {
	var app *fairApp
	var run *fairRun
	var w *work
	for _, a := range q.apps {
		r, first := q.first(a, ready)
		if r == nil {
			a.held = true
			continue
		}
		if a.held {
			a.held, a.start = false, max(a.start, q.clock)
		}
		if app == nil || a.start < app.start {
			app, run, w = a, r, first
		}
	}
	if app == nil {
		return nil
	}
	run.shift(w)
	if w.look = run.barren && len(w.chunk.Waits) == 0; w.look {
		q.looks++
	}
	q.clock, app.clock = app.start, run.start
	app.start += w.cost()
	run.start += w.cost() / run.weight
	q.tidy()
	return w
}

// first finds the app's run whose turn it is, and its chunk.
func (q *fairQueue) first(a *fairApp, ready func(*work) bool) (best *fairRun, of *work) {
	for _, r := range a.runs {
		if r.empty() {
			continue
		}
		w := r.first(q.looks > 0, ready)
		if w == nil {
			r.held = true
			continue
		}
		if r.held {
			r.held, r.start = false, max(r.start, a.clock)
		}
		if best == nil || r.start < best.start {
			best, of = r, w
		}
	}
	return best, of
}

// first is the run's next chunk that may go, or nil. looking says that a chunk of a barren run is being looked at.
func (r *fairRun) first(looking bool, ready func(*work) bool) *work {
	if len(r.chunks) > 0 && !(r.barren && looking) && ready(r.chunks[0]) {
		return r.chunks[0]
	}
	for _, list := range r.aside {
		if ready(list[0]) {
			return list[0]
		}
	}
	return nil
}

// shift takes out the first of a list.
func (r *fairRun) shift(w *work) {
	if len(w.chunk.Waits) == 0 {
		r.chunks[0] = nil
		r.chunks = r.chunks[1:]
		return
	}
	names := w.waits()
	if list := r.aside[names]; len(list) > 1 {
		list[0] = nil
		r.aside[names] = list[1:]
	} else {
		delete(r.aside, names)
	}
}

func (r *fairRun) empty() bool { return len(r.chunks)+len(r.aside) == 0 }

// looked settles what next took. Devices that wait for their destinations have had nothing yet, so their app and run pay for
// them when they go.
func (q *fairQueue) looked(w *work, waiting int, barren bool) {
	if w.look {
		q.looks--
		w.look = false
	}
	a := find(q.apps, func(a *fairApp) bool { return a.name == w.chunk.App })
	if a == nil {
		return
	}
	unspent := min(float64(waiting), w.cost())
	a.start -= unspent
	if r := find(a.runs, func(r *fairRun) bool { return r.key == w.run }); r != nil {
		r.barren = barren
		r.start -= unspent / r.weight
	}
}

// tidy forgets who has nothing queued and no turn to make up for.
func (q *fairQueue) tidy() {
	for _, a := range q.apps {
		a.runs = slices.DeleteFunc(a.runs, func(r *fairRun) bool { return r.empty() && r.start <= a.clock })
	}
	idle := !slices.ContainsFunc(q.apps, (*fairApp).waits)
	q.apps = slices.DeleteFunc(q.apps, func(a *fairApp) bool { return !a.waits() && (idle || a.start <= q.clock) })
}

func (a *fairApp) waits() bool {
	return slices.ContainsFunc(a.runs, func(r *fairRun) bool { return !r.empty() })
}

// remove takes out what match says, in no particular order but each list's.
func (q *fairQueue) remove(match func(*work) bool) []*work {
	var out []*work
	take := func(w *work) bool {
		if match(w) {
			out = append(out, w)
			return true
		}
		return false
	}
	for _, a := range q.apps {
		for _, r := range a.runs {
			for names, list := range r.aside {
				if list = slices.DeleteFunc(list, take); len(list) > 0 {
					r.aside[names] = list
				} else {
					delete(r.aside, names)
				}
			}
			r.chunks = slices.DeleteFunc(r.chunks, take)
		}
	}
	q.tidy()
	return out
}

// each calls do with every chunk of a run.
func (r *fairRun) each(do func(*work)) {
	for _, list := range r.aside {
		for _, w := range list {
			do(w)
		}
	}
	for _, w := range r.chunks {
		do(w)
	}
}

// longest takes n chunks that the run with the most chunks on a partition has there: the last ones of those that may go soonest,
// and before them those that wait for destinations.
func (q *fairQueue) longest(partition int32, n int) []*work {
	count := map[string]int{}
	run := ""
	for _, a := range q.apps {
		for _, r := range a.runs {
			r.each(func(w *work) {
				if w.task.Partition == partition {
					count[r.key]++
				}
			})
			if run == "" || count[r.key] > count[run] {
				run = r.key
			}
		}
	}
	there := func(w *work) bool { return w.run == run && w.task.Partition == partition }
	out := q.remove(func(w *work) bool {
		if len(w.chunk.Waits) == 0 || !there(w) || n <= 0 {
			return false
		}
		n--
		return true
	})
	skip := count[run] - len(out) - n
	return append(out, q.remove(func(w *work) bool {
		if n <= 0 || !there(w) {
			return false
		}
		skip--
		return skip < 0
	})...)
}
