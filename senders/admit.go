package senders

import (
	"context"
	"errors"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// admission brings one batch of a partition's records to their destinations' queues, or to their ends at once. What a
// batch's deliveries have in common, their run and destination, is looked up once for those that follow each other. It is
// used again.
type admission struct {
	parcel // of the one that is looked at
	jobs   []*job
	loads  []load
	ends   []ended

	// run is the last delivery's, by key.
	key runKey
	run *run
	// to is the last delivery's load, by where.
	where Destination
	to    int
}

// load is what goes to one destination.
type load struct {
	to   *destination
	jobs []*job
}

func (l *Lane) admit(ctx context.Context, tasks []*stream.Task, now time.Time) {
	a := l.admissions.Get().(*admission)
	a.jobs = l.jobs.take(a.jobs[:0], len(tasks))
	for i, t := range tasks {
		j := a.jobs[i]
		j.task, j.ctx = t, ctx
		v, bad := l.place(a, j, now)
		switch {
		case bad != nil:
			t.Done(t.DeadLetter(schemas.TopicDead(l.Provider.Platform()), bad.reason, bad.detail))
		case v.Next != placed:
			a.ends = append(a.ends, ended{j, v})
		}
		a.empty()
	}
	for i := range a.loads {
		load := &a.loads[i]
		load.to.push(load.jobs, now)
		clear(load.jobs)
		load.to, load.jobs = nil, load.jobs[:0]
	}
	l.finish(a.ends, now)
	a.rest()
	l.admissions.Put(a)
}

// rest lets go of what the batch was about.
func (a *admission) rest() {
	clear(a.jobs)
	clear(a.ends)
	a.loads, a.ends = a.loads[:0], a.ends[:0]
	a.key, a.run, a.where, a.to = runKey{}, nil, Destination{}, 0
}

// place puts a job with those of its destination, or says what it ends as, or why it cannot be read.
func (l *Lane) place(a *admission, j *job, now time.Time) (Verdict, *unreadable) {
	d, bad := a.look(j.task.Value, l.Provider.Platform(), l.Class)
	if bad != nil {
		return Verdict{}, bad
	}
	j.name, j.expires, j.created, j.again = d.Run, d.ExpiresAt, d.CreatedAt, d.Attempt > 0 || d.Asked
	j.early = isEarly(d, now)
	l.unparked(d, j.again, now) // whatever becomes of it: where it ends here, what it was counted as must not stay
	if v, bad := l.resolve(a, j, d); bad != nil || v.Next != placed {
		return v, bad
	}
	if v, ok := j.check(now); !ok {
		return v, nil
	}
	where, err := l.Provider.Destination(d)
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return refusal(err, OfDevice), nil
	}
	to := a.load(l, where, err == nil)
	to.jobs = append(to.jobs, j)
	return Verdict{Next: placed}, nil
}

// unparked takes a delivery that is back before its time off what its destination has parked. One of a cancelled campaign is
// back for its end, and as long as it counted its destination would seem to hold what is not there.
func (l *Lane) unparked(d *pb.Delivery, again bool, now time.Time) {
	due := time.UnixMilli(d.DueAt)
	if !d.Parked || d.LastCode == codePaused || !now.Before(due) {
		return
	}
	where, err := l.Provider.Destination(d)
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return
	}
	l.mu.Lock()
	to := l.destinations[where]
	l.mu.Unlock()
	if to != nil { // else it was parked by a process before
		to.unpark(due, again)
	}
}

// load is the load for a destination, which this process has a credential for or not.
func (a *admission) load(l *Lane, where Destination, ours bool) *load {
	if len(a.loads) > 0 && a.where == where {
		return &a.loads[a.to]
	}
	d := l.destination(where, ours)
	a.where, a.to = where, len(a.loads)
	for i := range a.loads {
		if a.loads[i].to == d {
			a.to = i
			return &a.loads[i]
		}
	}
	if a.to < cap(a.loads) {
		a.loads = a.loads[:a.to+1] // with the room of one before
	} else {
		a.loads = append(a.loads, load{})
	}
	a.loads[a.to].to = d
	return &a.loads[a.to]
}

// resolve finds the run and the message.
func (l *Lane) resolve(a *admission, j *job, d *pb.Delivery) (Verdict, *unreadable) {
	var err error
	switch key := (runKey{d.App, d.Run}); {
	case a.inline != nil:
		j.message, err = l.messages.compile(d.Run, a.inline)
		if err != nil && !errors.Is(err, errMessage) {
			return Verdict{}, &unreadable{"undecodable", "its message is not a belfry.v1.Message: " + err.Error()}
		}
	case d.Message != nil:
		j.message, err = l.messages.compile(d.Run, encode(d.Message))
	case a.run != nil && a.key == key:
		j.run = a.run
		j.message, err = j.run.message()
	default:
		j.run, err = l.Runs.lookup(j.ctx, d.App, d.Run, j.task.Timestamp)
		if err == nil {
			a.key, a.run = key, j.run
			j.message, err = j.run.message()
		}
	}
	switch {
	case err == nil:
		return Verdict{Next: placed}, nil
	case j.ctx.Err() != nil:
		return Verdict{Next: giveBack}, nil
	case errors.Is(err, errUnknownRun):
		return Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_DEAD, Code: "unknown-run"}, nil
	default:
		return Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-message", Of: OfMessage}, nil
	}
}
