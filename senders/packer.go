package senders

import (
	"context"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// packer gathers what a batch of deliveries became, by partition, so that each partition's lock is taken once for all, and
// the results of one run lie in one output. It is used again, with all that it has grown to.
type packer struct {
	lane *Lane
	// piles are by partition; those of touched hold something.
	piles   []pile
	touched []int32
	// finished counts ends.
	finished uint64
}

// pile is what one assignment of a partition is to be told.
type pile struct {
	ctx   context.Context
	tasks []*stream.Task
	outs  []stream.Output
	// open is the output that takes results of app's run, or -1.
	open     int
	app, run string
}

// pile is where a job belongs.
func (p *packer) pile(j *job) *pile {
	at := int(j.task.Partition)
	if at >= len(p.piles) {
		p.piles = append(p.piles, make([]pile, at+1-len(p.piles))...)
	}
	to := &p.piles[at]
	if to.ctx != nil && to.ctx != j.ctx {
		to.flush() // an assignment before
		to.ctx = j.ctx
	}
	if to.ctx == nil {
		to.ctx, to.open = j.ctx, -1
		p.touched = append(p.touched, int32(at))
	}
	return to
}

// done ends a job's task, after what it leaves behind.
func (p *packer) done(j *job) {
	to := p.pile(j)
	to.tasks = append(to.tasks, j.task)
}

// whole adds an output that is a record of its own.
func (p *packer) whole(j *job, out stream.Output) {
	to := p.pile(j)
	to.outs = append(to.outs, out)
}

// result adds what the ledger counts.
func (p *packer) result(j *job, v Verdict, now time.Time) {
	d := j.delivery
	r := pb.Result{
		Delivery: d.Id, Outcome: v.Outcome, Code: v.Code, At: now.UnixMilli(), Attempt: j.attempts(),
		Planned: transactional(d) && d.Attempt == 0 && d.LastCode == "",
		Message: v.Outcome == pb.Outcome_OUTCOME_REJECTED && v.Of&OfMessage != 0,
	}
	if v.Outcome == pb.Outcome_OUTCOME_ACCEPTED {
		r.Code = ""
	}
	if v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED {
		at := v.InvalidAt
		if at == 0 {
			at = now.UnixMilli()
		}
		r.Invalid = &pb.Invalid{Device: d.Device, At: at, RegisteredAt: d.RegisteredAt}
	}
	out := p.pile(j).results(d.App, d.Run, p.lane.results)
	out.Value = schemas.AppendResult(out.Value, &r)
}

// results is the output for the results of a run. Another's was open before, perhaps.
func (to *pile) results(app, run, topic string) *stream.Output {
	if to.open < 0 || to.run != run || to.app != app {
		to.open, to.app, to.run = len(to.outs), app, run
		if to.open < cap(to.outs) {
			to.outs = to.outs[:to.open+1] // with the room of one before
		} else {
			to.outs = append(to.outs, stream.Output{})
		}
		out := &to.outs[to.open]
		out.Topic, out.Mode = topic, stream.Append
		out.Key = append(append(append(out.Key[:0], app...), '/'), run...)
		out.Value = out.Value[:0]
	}
	return &to.outs[to.open]
}

// flush tells every partition.
func (p *packer) flush() {
	for _, at := range p.touched {
		p.piles[at].flush()
		p.piles[at].ctx = nil
	}
	p.touched = p.touched[:0]
	p.lane.finished.Add(p.finished)
	p.finished = 0
}

func (to *pile) flush() {
	stream.DoneAll(to.tasks, to.outs)
	to.reset()
}

// reset keeps the room and nothing else.
func (to *pile) reset() {
	clear(to.tasks)
	to.tasks = to.tasks[:0]
	for i := range to.outs {
		if out := &to.outs[i]; out.Mode != stream.Append {
			*out = stream.Output{} // the partition has it now
		}
	}
	to.outs = to.outs[:0]
	to.open, to.app, to.run = -1, "", ""
}
