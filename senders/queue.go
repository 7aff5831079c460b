package senders

import (
	"slices"
	"strings"
)

// queue holds a destination's jobs that wait. Runs take turns, and within a run the order of arrival holds: so a campaign of a
// thousand is not behind another's hundred thousand. Where places are short the run with least in flight is next, so that one whose
// answers do not come cannot take the places of one whose do. Those of a run that were asked before stand in a line of their own, so
// that what was refused is never in the way of what may pass; and so is a run of which nothing passes not in the way of others.
// Its owner locks.
type queue struct {
	runs []*line
	// turn is the run that is served next.
	turn int
	n    int
	// again counts those that were asked before, and since those that were served after one of them, or of a run of which nothing
	// passes, was last.
	again, since int
	// out are the lines that wait or have something in flight, and some that had.
	out map[lineKey]*out
}

// lineKey names a line.
type lineKey struct {
	run   string
	again bool
}

// out is how many of a line's are in flight, and how many have failed since one passed.
type out struct {
	lineKey
	n, failures int
	lined       bool // in a line
}

// failingEach failures, with none that passes between them, say that nothing of a run passes. Where one in twenty does, and deserves
// no worse than others, that many are one chance in twelve.
const failingEach = 48

func (o *out) failing() bool { return o.failures >= failingEach }

// againEach is after how many others one that was asked before, or of a run of which nothing passes, is served, when both wait.
const againEach = 8

// line is one run's jobs, or those of them that were asked before.
type line struct {
	lineKey
	jobs []*job
	out  *out
}

// behind says that it is served after againEach others only. It has jobs.
func (l *line) behind() bool { return l.again || l.out.failing() }

func (q *queue) len() int { return q.n }

// fresh counts those that were not asked before.
func (q *queue) fresh() int { return q.n - q.again }

// others says whether one waits that was not asked before and is not of this run.
func (q *queue) others(run string) bool {
	return slices.ContainsFunc(q.runs, func(l *line) bool { return l.run != run && !l.again })
}

// any says whether one waits of a run that match says, or that was asked before.
func (q *queue) any(match func(run string, again bool) bool) bool {
	return slices.ContainsFunc(q.runs, func(l *line) bool { return match(l.run, l.again) })
}

// count keeps the counts when a job comes or goes.
func (q *queue) count(j *job, n int) {
	q.n += n
	if j.again {
		q.again += n
	}
}

// line finds a job's run, or lines it up as the last to be served.
func (q *queue) line(j *job) *line {
	key := lineOf(j)
	if i := slices.IndexFunc(q.runs, func(l *line) bool { return l.lineKey == key }); i >= 0 {
		return q.runs[i]
	}
	l := &line{lineKey: key, out: q.outOf(key)}
	l.out.lined = true
	q.runs = slices.Insert(q.runs, q.turn, l)
	q.turn = (q.turn + 1) % len(q.runs)
	return l
}

// lineOf names the line that a job stands in.
func lineOf(j *job) lineKey { return lineKey{j.name, j.again} }

func (q *queue) outOf(key lineKey) *out {
	if o := q.out[key]; o != nil {
		return o
	}
	if q.out == nil {
		q.out = map[lineKey]*out{}
	}
	key.run = strings.Clone(key.run) // the name lies in a record
	o := &out{lineKey: key}
	q.out[key] = o
	return o
}

// begins notes that a job goes into flight.
func (q *queue) begins(j *job) { j.out.n++ }

// ends notes that it has come out, and with what, before anything else is noted in it.
func (q *queue) ends(j *job, v Verdict, heard bool) {
	o := j.out
	switch o.n--; {
	case !heard:
	case v.general():
		o.failures++
	default:
		o.failures = 0
	}
	q.forget(o)
}

// keptLines are as many as may be known of which nothing is left: they may come again soon.
const keptLines = 64

// crowd is how many times as many a run may have in flight as are free: so one whose answers do not come leaves room for the next,
// and so do several together.
const crowd = 8

// fits says whether one more of a job's run may be in flight where so many places are free, at least one.
func (q *queue) fits(j *job, free int) bool { return j.out.n <= crowd*free }

// forget lets go of a line of which nothing is left.
func (q *queue) forget(o *out) {
	if o.n == 0 && !o.lined && len(q.out) > keptLines {
		delete(q.out, o.lineKey)
	}
}

// push puts a job behind its line's others.
func (q *queue) push(j *job) {
	l := q.line(j)
	l.jobs, j.out = append(l.jobs, j), l.out
	q.count(j, 1)
}

// pushFront puts a job before its line's others.
func (q *queue) pushFront(j *job) {
	l := q.line(j)
	l.jobs, j.out = slices.Insert(l.jobs, 0, j), l.out
	q.count(j, 1)
}

// pop takes the first job of the run that is next, among those whose first job may go. It returns nil when there is none.
// plenty says that places are not short.
func (q *queue) pop(plenty bool, may func(*job) bool) *job {
	if j := q.take(plenty, may, q.since >= againEach); j != nil {
		return j
	}
	return q.take(plenty, may, true)
}

// take is pop with or without those that are served after againEach others. It asks may of one that it takes if it may, and of no other:
// a rate has given for it.
func (q *queue) take(plenty bool, may func(*job) bool, all bool) *job {
	can := func(at int) bool { return all || !q.runs[at].behind() }
	first := -1
	for i := range q.runs {
		if at := (q.turn + i) % len(q.runs); can(at) && (first < 0 || !plenty && q.runs[at].out.n < q.runs[first].out.n) {
			first = at
		}
	}
	if first < 0 {
		return nil
	}
	if may(q.runs[first].jobs[0]) {
		return q.serve(first)
	}
	for i := range q.runs { // a rate, or the breaker, keeps that run back
		if at := (q.turn + i) % len(q.runs); at != first && can(at) && may(q.runs[at].jobs[0]) {
			return q.serve(at)
		}
	}
	return nil
}

// serve takes the first job of a run.
func (q *queue) serve(at int) *job {
	l := q.runs[at]
	j := l.jobs[0]
	if q.since++; l.behind() {
		q.since = 0
	}
	l.jobs[0] = nil
	l.jobs = l.jobs[1:]
	q.count(j, -1)
	q.turn = at + 1
	if len(l.jobs) == 0 {
		q.runs = slices.Delete(q.runs, at, at+1)
		q.turn = at
		q.over(l)
	}
	if q.turn >= len(q.runs) {
		q.turn = 0
	}
	return j
}

// over notes that a line is empty.
func (q *queue) over(l *line) {
	l.out.lined = false
	q.forget(l.out)
}

// remove takes out the jobs that match says, in no particular order of runs.
func (q *queue) remove(match func(*job) bool) []*job {
	var out []*job
	for _, l := range q.runs {
		l.jobs = slices.DeleteFunc(l.jobs, func(j *job) bool {
			if !match(j) {
				return false
			}
			out = append(out, j)
			q.count(j, -1)
			return true
		})
	}
	if len(out) == 0 {
		return nil
	}
	q.runs = slices.DeleteFunc(q.runs, func(l *line) bool {
		if len(l.jobs) > 0 {
			return false
		}
		q.over(l)
		return true
	})
	q.turn = 0
	return out
}

// oldest is the job that has waited longest, or nil.
func (q *queue) oldest() (first *job) {
	for _, l := range q.runs {
		if j := l.jobs[0]; first == nil || j.queued.Before(first.queued) {
			first = j
		}
	}
	return first
}
