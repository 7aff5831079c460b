package senders

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/belfry/belfry/senders/wire"
)

// A destination's requests are made by one goroutine at a time, its pump, in batches. Whoever makes work for it, by jobs or by
// answers that make room, pumps one batch on the spot: that wakes no core for it. What is more goes to a goroutine that
// lives for as long as there is something to send within the limit, so that a partition's loop is not held up by another's
// deliveries, nor a connection's reader by new requests.

// batchAtMost is how many requests are made at a time. A batch takes a core for about a hundred microseconds, and what is
// urgent may need that core.
const batchAtMost = 64

// start has the pump run if there is work for it. Called with mu held.
func (d *destination) start(now time.Time) {
	if d.claim(now) {
		d.pumps.Go(d.pump)
	}
}

// claim makes the caller the pump if there is work for one and it has none. Called with mu held.
func (d *destination) claim(now time.Time) bool {
	if d.pumping || !d.ready(now) {
		return false
	}
	d.pumping = true
	return true
}

// once pumps one batch, and leaves what is more to a goroutine. The caller has claimed it.
func (d *destination) once(s *scratch, now time.Time) {
	if !d.turn(s, now) {
		return
	}
	d.mu.Lock()
	d.pumping = false
	d.start(now)
	d.mu.Unlock()
}

func (d *destination) pump() {
	s := scratches.Get().(*scratch)
	for d.turn(s, time.Now()) {
		runtime.Gosched()
	}
	scratches.Put(s)
}

// scratch is a pump's own. It is used again.
type scratch struct {
	jobs  []*job
	over  []ended
	kits  []*kit
	batch []*Request
}

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// turn makes one batch of requests. When there is none to make, the pump has ended.
func (d *destination) turn(s *scratch, now time.Time) bool {
	if !d.begin(s, now) {
		return false
	}
	d.finish(s.over, now)
	d.ask(s, now)
	clear(s.jobs)
	clear(s.over)
	clear(s.batch)
	return true
}

// begin takes the next jobs into flight, and out of the queue those that need no request any more. It is false when there
// are none.
func (d *destination) begin(s *scratch, now time.Time) bool {
	s.jobs, s.over = s.jobs[:0], s.over[:0]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready(now) {
		purse := d.draw(d.most(now), now)
		for len(s.jobs) < batchAtMost && d.free() > 0 {
			j := d.next(&purse, now)
			if j == nil {
				break
			}
			d.account(j, -1)
			if v, ok := j.check(now); !ok {
				s.over = append(s.over, ended{j, v})
				purse.left++
				continue
			}
			d.fly(j, now)
			s.jobs = append(s.jobs, j)
		}
		d.giveBack(&purse, len(d.flows), purse.left)
	}
	d.pumping = len(s.jobs)+len(s.over) > 0
	return d.pumping
}

// next takes the job whose turn it is out of the queue, if the breaker and the rates let one go. Called with mu held.
func (d *destination) next(p *purse, now time.Time) *job {
	admits, free := d.admits(now), d.free()
	plenty := 2*free > d.slots()
	if admits == admitsAll {
		return d.queue.pop(plenty, func(j *job) bool { return d.queue.fits(j, free) && d.let(j, p, now) })
	}
	for _, may := range d.probes(admits, now) {
		if j := d.queue.pop(plenty, func(j *job) bool { return may(j) && d.let(j, p, now) }); j != nil {
			return j
		}
	}
	return nil
}

// probes say who may be asked at a destination that is shut: whom the first says, or else the next. Called with mu held.
func (d *destination) probes(admits admits, now time.Time) []func(*job) bool {
	again := func(j *job) bool { return j.again }
	fresh := func(j *job) bool { return !j.again }
	b := &d.breaker
	switch admits {
	case admitsTaste:
		return []func(*job) bool{func(j *job) bool { return fresh(j) && b.untasted(j.name) }}
	case admitsNew:
		return []func(*job) bool{fresh}
	case admitsRound:
		due := func(j *job) bool { return b.due(j.name, now) }
		return []func(*job) bool{func(j *job) bool { return again(j) && due(j) }, due}
	case admitsOne:
		return []func(*job) bool{fresh, again}
	}
	return nil
}

// most is how many requests the next batch may have. Called with mu held, when one may begin.
func (d *destination) most(now time.Time) int {
	n := min(batchAtMost, d.queue.len(), d.free())
	if d.breaker.state != stateOpen {
		n = min(n, max(tasteEach, d.breaker.wanted(now)))
	}
	return n
}

// fly counts a job among those in flight. Called with mu held.
func (d *destination) fly(j *job, now time.Time) {
	if d.flight.n == 0 {
		d.busy = now
	}
	d.flight.begins(now)
	d.queue.begins(j)
	d.breaker.asked(j, now)
	j.begun, j.repeats = now, 0
}

// ask makes the jobs' requests and sends them.
func (d *destination) ask(s *scratch, now time.Time) {
	d.equip(s)
	s.batch = s.batch[:0]
	var unsent []ended
	for _, j := range s.jobs {
		r := &j.kit.Request
		if err := d.provider.Encode(r, j.delivery, j.message, now); err != nil {
			unsent = append(unsent, ended{j, refusal(err, OfMessage)})
			continue
		}
		r.Handler, r.Tag, r.Timeout = d, j, j.timeout(now, d.timeout)
		s.batch = append(s.batch, r)
	}
	if len(unsent) > 0 {
		d.mu.Lock()
		for _, e := range unsent {
			d.learn(e.job, &e.verdict, false, now)
		}
		d.mu.Unlock()
		d.finish(unsent, now)
	}
	if len(s.batch) > 0 {
		d.provider.Send(s.batch)
	}
}

// equip opens the jobs that are not; those that were asked before are.
func (d *destination) equip(s *scratch) {
	s.kits = d.kits.take(s.kits[:0], len(s.jobs))
	left := s.kits
	for _, j := range s.jobs {
		if j.kit == nil {
			j.open(left[0])
			left = left[1:]
		}
	}
	if len(left) > 0 {
		d.kits.give(left)
	}
	clear(s.kits)
}

// harvest is what one batch of answers became. It is used again.
type harvest struct {
	answers []answer
	ends    []ended
	again   []*Request
	scratch scratch
}

type answer struct {
	ended
	heard bool
}

var harvests = sync.Pool{New: func() any { return &harvest{} }}

// Answered implements wire.Handler: it reads a batch of answers, learns from them under one lock, and ends their jobs.
func (d *destination) Answered(results []wire.Result) {
	h := harvests.Get().(*harvest)
	now := time.Now()
	for i := range results {
		j := results[i].Request.Tag.(*job)
		v, heard := d.read(j, &results[i], now)
		h.answers = append(h.answers, answer{ended{j, v}, heard})
	}
	d.mu.Lock()
	for i := range h.answers {
		switch a := &h.answers[i]; {
		case a.verdict.Next == Again:
			h.again = append(h.again, &a.kit.Request)
		case !d.learn(a.job, &a.verdict, a.heard, now):
			h.ends = append(h.ends, a.ended)
		}
	}
	h.ends = append(h.ends, d.cleared...)
	clear(d.cleared)
	d.cleared = d.cleared[:0]
	more := d.claim(now)
	d.mu.Unlock()
	d.finish(h.ends, now)
	if len(h.again) > 0 {
		d.provider.Send(h.again)
	}
	if more {
		d.once(&h.scratch, now)
	}
	clear(h.answers)
	clear(h.ends)
	clear(h.again)
	h.answers, h.ends, h.again = h.answers[:0], h.ends[:0], h.again[:0]
	harvests.Put(h)
}

// read says what an answer means. Again is its word only for a request that may be repeated at once.
func (d *destination) read(j *job, res *wire.Result, now time.Time) (v Verdict, heard bool) {
	if res.Err != nil {
		if errors.Is(res.Err, ErrTokenRefused) {
			return Verdict{Next: noToken, Code: codeTokenRefused}, true
		}
		if errors.Is(res.Err, ErrNoToken) {
			return Verdict{Next: noToken, Code: codeNoToken}, true
		}
		if refused := (*Refusal)(nil); errors.As(res.Err, &refused) {
			return refusal(refused, OfMessage), false
		}
	}
	j.asked = true
	if v = d.provider.Classify(&j.kit.Request, res); v.Next != Again {
		return v, true
	}
	if j.repeats++; j.repeats >= againAtMost {
		v.Next, v.Of = Later, OfDevice|OfService
		return v, true
	}
	if w, ok := j.check(now); !ok {
		return w, false
	}
	j.kit.Timeout = j.timeout(now, d.timeout)
	return v, true
}
