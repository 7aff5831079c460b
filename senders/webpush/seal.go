package webpush

import (
	"errors"
	"runtime"
	"sync"

	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/webpush/encrypt"
	"github.com/belfry/belfry/senders/wire"
)

// chunkSize is how many messages are encrypted before they go on, together: some 0.4 ms of a core, which is the most that an
// urgent one waits for a campaign's; and enough that a write to the connection is worth its price.
const chunkSize = 8

// sealers encrypt messages on their way from the lanes to the wire, for all apps of the process. Encryption takes ten times
// the CPU of all the rest that is done for a message, so it is spread over the cores, beside the lanes' loops. One core
// is left alone: Go's scheduler looks for what the network has brought only when a core has nothing else to run or
// after 10 ms, so with all of them busy each answer, of every platform in the process, comes those 10 ms late.
//
// A sealer lives as long as there is work for it. What waits is bounded by what the lanes have in flight.
type sealers struct {
	limit int

	mu           sync.Mutex // guards what follows
	urgent, bulk queue
	running      int
	closed       bool
	working      sync.WaitGroup
}

func newSealers() *sealers { return &sealers{limit: max(1, runtime.GOMAXPROCS(0)-1)} }

// chunk is a part of a batch. It is used again, see chunks.
type chunk struct {
	requests []*senders.Request
	sealed   []*wire.Request
	// padding is the app's bucket, bytes.
	padding int
	// send is the client's that they go to.
	send func([]*wire.Request)
	next *chunk
}

// chunks are used again: there is one for every eight messages.
var chunks = sync.Pool{New: func() any {
	return &chunk{requests: make([]*senders.Request, 0, chunkSize), sealed: make([]*wire.Request, 0, chunkSize)}
}}

// queue is first in, first out.
type queue struct{ first, last *chunk }

func (q *queue) push(c *chunk) {
	if q.first == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
}

func (q *queue) pop() *chunk {
	c := q.first
	if c != nil {
		q.first, c.next = c.next, nil
	}
	return c
}

// seal encrypts a batch of one class and hands it to send, in parts and not necessarily in order, and returns at once. A
// request that cannot be encrypted ends with a *senders.Refusal, and all do with wire.ErrClosed after close.
func (s *sealers) seal(batch []*senders.Request, urgent bool, padding int, send func([]*wire.Request)) {
	if !s.enqueue(batch, urgent, padding, send) {
		senders.Fail(batch, wire.ErrClosed)
	}
}

func (s *sealers) enqueue(batch []*senders.Request, urgent bool, padding int, send func([]*wire.Request)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	to := &s.bulk
	if urgent {
		to = &s.urgent
	}
	for len(batch) > 0 {
		n := min(len(batch), chunkSize)
		c := chunks.Get().(*chunk)
		c.requests = append(c.requests[:0], batch[:n]...)
		c.padding, c.send = padding, send
		to.push(c)
		batch = batch[n:]
		if s.running < s.limit {
			s.running++
			s.working.Go(s.work)
		}
	}
	return true
}

// work is one sealer.
func (s *sealers) work() {
	for c := s.take(); c != nil; c = s.take() {
		c.run()
		runtime.Gosched() // what became ready on this core meanwhile has waited long enough
	}
}

// take is the next chunk, or nil when the sealer has to end.
func (s *sealers) take() *chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.urgent.pop()
	if c == nil {
		c = s.bulk.pop()
	}
	if c == nil {
		s.running--
	}
	return c
}

func (c *chunk) run() {
	for i, r := range c.requests {
		t := r.Delivery.GetTarget().GetWebpush()
		var err error
		r.Body, err = encrypt.Append(r.Body[:0], r.Plain, t.GetP256Dh(), t.GetAuth(), c.padding)
		if err != nil {
			senders.Fail(c.requests[i:i+1], refused(err))
			continue
		}
		c.sealed = append(c.sealed, &r.Request)
	}
	if len(c.sealed) > 0 {
		c.send(c.sealed)
	}
	clear(c.requests)
	clear(c.sealed)
	*c = chunk{requests: c.requests[:0], sealed: c.sealed[:0]}
	chunks.Put(c)
}

// refused is what ends a delivery that cannot be encrypted for its device.
func refused(err error) error {
	switch {
	case errors.Is(err, encrypt.ErrSubscription):
		return payload.Refuse("bad-subscription", err.Error())
	case errors.Is(err, encrypt.ErrTooLarge):
		return payload.Refuse("payload-too-large", err.Error())
	default:
		return err
	}
}

// close lets what waits go to its client, which comes after the encryption, and waits for it. The clients must be closed
// after it, so that nothing is handed to one that has ended.
func (s *sealers) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.working.Wait()
}
