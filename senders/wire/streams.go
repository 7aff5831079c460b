package wire

import "golang.org/x/net/http2/hpack"

// state is a stream's, as far as a client that only sends POSTs must tell (RFC 9113 section 5.1). A closed one says how it
// closed, for as long as its slot is not used again: a late frame means something else in each case.
type state uint8

const (
	unused state = iota
	open
	ended      // by the peer's END_STREAM: another frame is an error of the connection
	peerReset  // by the peer's RST_STREAM: another frame is an error of the stream
	localReset // by ours: frames may be under way that the peer sent before it knew
)

// stream is a slot of the table.
type stream struct {
	id    uint32
	state state
	tries uint8
	// interim counts the 1xx responses.
	interim uint8
	req     *Request
	// answer is there from the final response's HEADERS on.
	answer *answer
	// unsent is how much of the body has not been written: above 0, our side is not closed.
	unsent int
	// window is what the peer lets us send; a change of its settings can take it below 0 (RFC 9113 section 6.9.2).
	window int64
	// credit is what we let the peer send, and has not been used.
	credit int
	// received counts the body's bytes.
	received int64
}

// answer is the memory of a response. It goes with its Result to the handler, and then back to the connection.
type answer struct {
	status int
	// length is the content-length, or -1.
	length int64
	fields []hpack.HeaderField
	body   []byte
}

// streams finds a stream by arithmetic. Ids only ascend, so a ring of slots indexed by the id's low bits holds them all as
// long as no two in flight meet in one slot; where the next id would meet one that is slow, that id is left out, which the
// protocol permits (RFC 9113 section 5.1.1: the idle ones below a new id are closed). So there is no map, and no memory for
// what is over.
type streams struct {
	slots []stream // its length is a power of two, and at least twice live
	live  int
	// next is the next id to open, odd; those from it on are idle.
	next uint32
}

// maxStream is the highest id there is. RFC 9113 section 5.1.1.
const maxStream = 1<<31 - 1

func newStreams(first uint32) streams { return streams{slots: make([]stream, 64), next: first} }

func (t *streams) slot(id uint32) *stream { return &t.slots[int(id>>1)&(len(t.slots)-1)] }

// get is the stream's slot if it still has one, open or closed.
func (t *streams) get(id uint32) *stream {
	if s := t.slot(id); s.id == id && s.state != unused {
		return s
	}
	return nil
}

// idle says that the id was never used, so that the peer cannot know it. Even ids are the peer's, and it may have none.
func (t *streams) idle(id uint32) bool { return id >= t.next || id%2 == 0 }

// open takes a slot for the next id; nil when the ids are used up.
func (t *streams) open() *stream {
	if 2*(t.live+1) > len(t.slots) {
		t.grow()
	}
	for t.next <= maxStream && t.slot(t.next).state == open {
		t.next += 2
	}
	if t.next > maxStream {
		return nil
	}
	s := t.slot(t.next)
	*s = stream{id: t.next, state: open}
	t.next += 2
	t.live++
	return s
}

// close frees a slot, and leaves word how it closed.
func (t *streams) close(s *stream, how state) {
	*s = stream{id: s.id, state: how}
	t.live--
}

func (t *streams) grow() {
	old := t.slots
	t.slots = make([]stream, 2*len(old))
	for i := range old {
		if old[i].state != unused {
			*t.slot(old[i].id) = old[i]
		}
	}
}

// all calls f with each open stream, which it may close.
func (t *streams) all(f func(s *stream)) {
	if t.live == 0 {
		return
	}
	for i := range t.slots {
		if t.slots[i].state == open {
			f(&t.slots[i])
		}
	}
}
