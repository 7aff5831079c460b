package wire

import "time"

// entry is a request that waits for a stream.
type entry struct {
	req *Request
	// tries is how many connections have sent it back by a GOAWAY.
	tries uint8
}

// queue keeps entries in order: a ring that grows.
type queue struct {
	ring    []entry // its length is a power of two
	head, n int
}

func (q *queue) at(i int) *entry { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

func (q *queue) push(e entry) {
	q.grow()
	*q.at(q.n) = e
	q.n++
}

func (q *queue) pushFront(e entry) {
	q.grow()
	q.head = (q.head - 1) & (len(q.ring) - 1)
	q.ring[q.head] = e
	q.n++
}

func (q *queue) pop() entry {
	e := *q.at(0)
	*q.at(0) = entry{}
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return e
}

func (q *queue) grow() {
	if q.n < len(q.ring) {
		return
	}
	ring := make([]entry, max(64, 2*len(q.ring)))
	for i := range q.n {
		ring[i] = *q.at(i)
	}
	q.ring, q.head = ring, 0
}

// expire takes out what is past its deadline.
func (q *queue) expire(now time.Time, gone []Result) []Result {
	kept := 0
	for i := range q.n {
		e := *q.at(i)
		if e.req.late(now) {
			gone = append(gone, Result{Request: e.req, Err: errLate})
			continue
		}
		*q.at(kept) = e
		kept++
	}
	for i := kept; i < q.n; i++ {
		*q.at(i) = entry{}
	}
	q.n = kept
	return gone
}
