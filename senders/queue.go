package senders

import "slices"

// queue holds a destination's jobs that wait. Runs take turns, and within a run the order of arrival holds: so a campaign
// of a thousand is not behind another's hundred thousand. Its owner locks.
type queue struct {
	runs []*line
	// turn is the run that is served next.
	turn int
	n    int
}

// line is one run's jobs.
type line struct {
	run  string
	jobs []*job
}

func (q *queue) len() int { return q.n }

// line finds a job's run, or lines it up as the last to be served.
func (q *queue) line(j *job) *line {
	run := j.name
	if i := slices.IndexFunc(q.runs, func(l *line) bool { return l.run == run }); i >= 0 {
		return q.runs[i]
	}
	l := &line{run: run}
	q.runs = slices.Insert(q.runs, q.turn, l)
	q.turn = (q.turn + 1) % len(q.runs)
	return l
}

// push puts a job behind its run's others.
func (q *queue) push(j *job) {
	l := q.line(j)
	l.jobs = append(l.jobs, j)
	q.n++
}

// pushFront puts a job before its run's others.
func (q *queue) pushFront(j *job) {
	l := q.line(j)
	l.jobs = slices.Insert(l.jobs, 0, j)
	q.n++
}

// pop takes the first job of the run whose turn it is, among those runs whose first job may go. It returns nil when there
// is none.
func (q *queue) pop(may func(*job) bool) *job {
	for i := range q.runs {
		at := (q.turn + i) % len(q.runs)
		l := q.runs[at]
		j := l.jobs[0]
		if !may(j) {
			continue
		}
		l.jobs[0] = nil
		l.jobs = l.jobs[1:]
		q.n--
		q.turn = at + 1
		if len(l.jobs) == 0 {
			q.runs = slices.Delete(q.runs, at, at+1)
			q.turn = at
		}
		if q.turn >= len(q.runs) {
			q.turn = 0
		}
		return j
	}
	return nil
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
			return true
		})
	}
	if len(out) == 0 {
		return nil
	}
	q.n -= len(out)
	q.runs = slices.DeleteFunc(q.runs, func(l *line) bool { return len(l.jobs) == 0 })
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
