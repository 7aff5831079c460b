package stream

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// partition is one assignment of one partition. When the partition is lost and comes back, that is another one: a task
// holds a pointer to the assignment it belongs to, so what ends late ends nothing.
//
//	assigned ──▶ receiving ──(revoked, or stop)──▶ draining ──(committed)──▶ over
//	                 └──────────────(lost)─────────────────────────────────▶ over
type partition struct {
	tp
	assignment uint64
	member     string // who this process was in its group when it got the partition
	cfg        *Options
	keys       *spread
	toldStray  bool
	log        *slog.Logger
	// ctx is what Handle gets. It ends when draining begins.
	ctx    context.Context
	cancel context.CancelFunc
	// wake has room for one: there is something ready. full asks the session for a commit before its time.
	wake, full chan struct{}
	// waiting is the bytes of outputs that wait for a commit, of all of the session's partitions.
	waiting *atomic.Int64
	// worked is closed when the handling goroutine has returned.
	worked chan struct{}

	mu sync.Mutex // guards all below
	w  *window
	// base is the committed offset, or -1; skip are the records above it that were done before.
	// meta is what is committed with base, and tried a commit that is under way, or of which nobody knows whether it stands.
	base  int64
	meta  string
	tried *part
	skip  []span
	ready []*Task // received, not handed over
	mixed bool    // ready is not in order
	busy  int     // handed over, not ended
	out   outputs
	// received is when the record came that is the oldest of the unfinished, roughly: the last time that there was none.
	clear    time.Time
	highest  int64 // high watermark at the last fetch
	paused   bool
	draining bool
	over     bool
	away     bool          // kept for another assignment: see keep
	idle     chan struct{} // closed when draining and nothing is busy
	halted   error         // why the partition stands still
}

// receive takes fetched records into the window.
func (p *partition) receive(records []*kgo.Record, highest int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.highest = highest
	if p.draining || p.over || len(records) == 0 {
		return
	}
	if n := len(p.skip); n > 0 && p.skip[n-1].to > highest {
		p.skip = nil // it speaks of records that this log does not have
	}
	if p.w.unfinished() == 0 {
		p.clear = time.Now()
	}
	tasks := make([]Task, 0, len(records))
	for _, r := range records {
		if r.Offset < p.w.end {
			continue
		}
		if r.Attrs.IsControl() {
			p.w.pass(r.Offset + 1)
			continue
		}
		seq := p.w.push(r.Offset, len(r.Key)+len(r.Value))
		if p.skips(r.Offset) {
			p.w.finish(seq)
			continue
		}
		tasks = append(tasks, Task{
			Topic: p.topic, Partition: p.partition, Offset: r.Offset,
			Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp,
			p: p, seq: seq,
		})
		p.ready = append(p.ready, &tasks[len(tasks)-1])
	}
	p.signal()
}

// skips reports whether a record was done before this assignment. Offsets come in order, so spans are used up.
func (p *partition) skips(offset int64) bool {
	for len(p.skip) > 0 && p.skip[0].to <= offset {
		p.skip = p.skip[1:]
	}
	return len(p.skip) > 0 && p.skip[0].from <= offset
}

func (p *partition) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// work hands what is ready to the role, in order, until the assignment drains.
func (p *partition) work() {
	defer close(p.worked)
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		}
		if tasks := p.atHome(p.take()); len(tasks) > 0 {
			p.cfg.Handle(p.ctx, tasks)
		}
	}
}

func (p *partition) take() []*Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining || p.over {
		return nil
	}
	if p.mixed {
		slices.SortFunc(p.ready, func(a, b *Task) int { return cmp.Compare(a.seq, b.seq) })
	}
	tasks := p.ready
	p.ready, p.mixed = nil, false
	p.busy += len(tasks)
	return tasks
}

// finish ends a task. released ones stay unfinished in the window, so that they come again.
func (p *partition) finish(t *Task, released bool, outs []Output) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended || p.over {
		return
	}
	p.endOne(t, released)
	if !released {
		p.add(outs)
	}
	p.ended()
}

func (p *partition) finishAll(tasks []*Task, outs []Output) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	for _, t := range tasks {
		if t.ended {
			panic("stream: a task among many ended twice: its outputs cannot be told from the others'")
		}
		p.endOne(t, false)
	}
	p.add(outs)
	p.ended()
}

// endOne ends one task. p.mu is held, here and in the two that follow.
func (p *partition) endOne(t *Task, released bool) {
	t.ended = true
	p.busy--
	if !released {
		p.w.finish(t.seq)
	} else if p.cfg.Keep {
		// It is handed over again, if the partition is kept; or now, if it has been resumed meanwhile.
		p.ready, p.mixed = append(p.ready, t.anew()), true
		p.signal()
	}
}

// add keeps outputs for the next commit, and asks for it when much waits.
func (p *partition) add(outs []Output) {
	before := p.out.bytes
	p.out.add(outs)
	waiting := p.waiting.Add(p.out.bytes - before)
	if p.w.unfinished() == 0 {
		p.clear = time.Time{}
	}
	if p.w.fresh.records >= min(commitRecords, p.cfg.Records/commitPart) || p.out.records >= commitRecords || waiting >= commitBytes {
		select {
		case p.full <- struct{}{}:
		default:
		}
	}
}

// ended looks whether that was the last task in flight.
func (p *partition) ended() {
	if p.draining && p.busy == 0 {
		p.closeIdle()
	}
}

func (p *partition) closeIdle() {
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}

// drain stops handing out and takes back what is not begun. idle closes when the tasks in flight have ended.
func (p *partition) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	if !p.cfg.Keep {
		p.ready = nil
	}
	if p.busy == 0 {
		p.closeIdle()
	}
	p.cancel()
}

// end makes the assignment history: whatever its tasks do from here on does nothing.
func (p *partition) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining, p.over = true, true
	p.ready = nil
	p.takeOutputs()
	p.cancel()
}

// isGone says that the partition is not this process's any more, or not yet again.
func (p *partition) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over || p.away
}

// settle frees what a commit that stands has covered. p.mu is held.
func (p *partition) settle(part *part) {
	part.out.free()
	p.w.release(part.low, part.frees)
	p.base, p.meta, p.tried = part.base, part.meta, nil
}

// takeOutputs takes what waits for a commit. p.mu is held.
func (p *partition) takeOutputs() outputs {
	o := p.out
	p.out = outputs{}
	p.waiting.Add(-o.bytes)
	return o
}

// fill is how full the window is, 0 to 1 and, by one poll, above. p.mu is held.
func (p *partition) fill() float64 {
	return max(
		float64(p.w.held.records)/float64(p.cfg.Records),
		float64(p.w.held.bytes)/float64(p.cfg.Bytes),
		float64(p.w.span())/float64(spanFactor*p.cfg.Records),
		p.w.mapped(),
	)
}

// position is what may be committed: the lowest unfinished offset, and what is done above it, by this assignment or by
// those before. p.mu is held.
func (p *partition) position() (base int64, done []span) {
	base, done = p.w.position()
	for _, s := range p.skip {
		if s.from = max(s.from, p.w.end); s.from < s.to {
			done = append(done, s)
		}
	}
	return base, done
}

// halt makes the partition stand still for the rest of its assignment, and reports whether it did not already.
func (p *partition) halt(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.halted != nil {
		return false
	}
	p.halted, p.paused = err, true
	return true
}

func (p *partition) committed() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base
}

func (k tp) String() string { return fmt.Sprintf("%s/%d", k.topic, k.partition) }
