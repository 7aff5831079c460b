package stream

// window is what one assignment of one partition has received and not yet committed: a ring of slots in the order of
// arrival. A task finds its slot by its sequence number, so ending it costs one store, whatever the order, and needs no
// map. Offsets never index anything: they have holes.
//
//	         head                                next
//	──────────┬───┬───┬───┬───┬───┬───┬───┬───┬───┬──────▶ arrival
//	committed │ ✓ │ … │ ✓ │ ✓ │ … │ … │ ✓ │ … │ … │
//	──────────┴───┴───┴───┴───┴───┴───┴───┴───┴───┴──────▶
//	           done  ▲ lowest unfinished: what may be committed; ✓ above it go into the completion map
//
// Two things are bounded. What is held, in records and bytes, is what costs memory: records not yet done, and done but not
// yet committed, so that a Kafka that takes no commits stops the intake rather than fills memory. The span of the ring is
// what one record that takes long can keep from being released: 16 bytes a slot, so it may be much wider.
//
// window does no locking; its partition does.
type window struct {
	ring []slot // length is a power of two
	head uint64 // sequence of the oldest slot kept
	low  uint64 // sequence of the lowest unfinished slot; head ≤ low ≤ next
	next uint64 // sequence of the next slot
	// above counts the records done among [low, next), and runs how many stretches they form.
	above, runs int
	// held is what costs memory; of that, fresh is done since the last snapshot.
	held, fresh amount
	// end is the offset after the last record received or marker passed, or the committed offset before the first; -1 when
	// none is known.
	end int64
}

type amount struct {
	records int
	bytes   int64
}

type slot struct {
	offset int64
	size   int32
	done   bool
}

func newWindow(records int, committed int64) *window {
	n := 64
	for n < records {
		n <<= 1
	}
	return &window{ring: make([]slot, n), end: committed}
}

func (w *window) slot(seq uint64) *slot { return &w.ring[seq&uint64(len(w.ring)-1)] }

// span is how many slots are in use.
func (w *window) span() int { return int(w.next - w.head) }

// unfinished is how many records are not done.
func (w *window) unfinished() int { return int(w.next-w.low) - w.above }

// push adds a record in order of arrival and returns its sequence. It grows the ring when a poll brings more than the
// bound allowed for, which is at most one poll's records.
func (w *window) push(offset int64, size int) uint64 {
	if w.span() == len(w.ring) {
		w.grow()
	}
	seq := w.next
	w.next++
	*w.slot(seq) = slot{offset: offset, size: int32(size)}
	w.held.records++
	w.held.bytes += int64(size)
	w.end = offset + 1
	return seq
}

// pass notes that nothing is left before an offset but what has been received: a transaction's marker, and whatever was
// aborted before it, which no reader is given.
func (w *window) pass(end int64) { w.end = max(w.end, end) }

// passed says that the position is beyond what is committed though no record ended: markers came, or aborted records did not.
// Without a commit of that, a group would stand before them for ever, and they would look like its backlog.
func (w *window) passed(committed int64) bool { return w.low == w.next && w.end > committed }

func (w *window) grow() {
	old := *w
	w.ring = make([]slot, 2*len(old.ring))
	for seq := w.head; seq < w.next; seq++ {
		*w.slot(seq) = *old.slot(seq)
	}
}

// finish marks a slot done and reports whether it was not before.
func (w *window) finish(seq uint64) bool {
	if seq < w.low || seq >= w.next {
		return false
	}
	s := w.slot(seq)
	if s.done {
		return false
	}
	s.done = true
	w.fresh.records++
	w.fresh.bytes += int64(s.size)
	w.above++
	w.runs++
	if seq > w.low && w.slot(seq-1).done {
		w.runs--
	}
	if seq+1 < w.next && w.slot(seq+1).done {
		w.runs--
	}
	if seq == w.low {
		w.runs--
	}
	for w.low < w.next && w.slot(w.low).done {
		w.low++
		w.above--
	}
	return true
}

// mapped is how full the completion map is, at most: below 1 it fits as runs or as a bitmap.
func (w *window) mapped() float64 {
	if w.low == w.next {
		return 0
	}
	return min(float64(w.runs)/fitRuns, float64(w.end-w.slot(w.low).offset)/fitOffsets)
}

// position is what may be committed now: the lowest unfinished offset and the done spans above it. It is -1 when
// nothing is known yet.
func (w *window) position() (base int64, done []span) {
	if w.low == w.next {
		return w.end, nil
	}
	base = w.slot(w.low).offset
	if w.above == 0 {
		return base, nil
	}
	for seq := w.low; seq < w.next; {
		if !w.slot(seq).done {
			seq++
			continue
		}
		from := w.slot(seq).offset
		for seq < w.next && w.slot(seq).done {
			seq++
		}
		to := w.end
		if seq < w.next {
			to = w.slot(seq).offset
		}
		done = append(done, span{from, to})
	}
	return base, done
}

// snapshot takes what a commit made now covers: the sequence to release up to, and what it frees of what is held.
func (w *window) snapshot() (low uint64, frees amount) {
	frees, w.fresh = w.fresh, amount{}
	return w.low, frees
}

// release ends what a snapshot covered, once its commit stands.
func (w *window) release(low uint64, frees amount) {
	w.head = max(w.head, low)
	w.held.records -= frees.records
	w.held.bytes -= frees.bytes
}
