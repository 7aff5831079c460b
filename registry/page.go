package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"unsafe"
)

// page is what one round trip of a scan brought: stored devices, as Redis answered. It is used again and again, so that a
// scan of a million devices makes no garbage of them.
type page struct {
	replies []*reply
	n       int // replies in use
	// values are those of answers that were read by the library.
	values []string
}

// pages are not in use.
var pages = sync.Pool{New: func() any { return new(page) }}

func (p *page) free() {
	p.n = 0
	clear(p.values)
	p.values = p.values[:0]
	pages.Put(p)
}

// next is one more reply, empty.
func (p *page) next() *reply {
	if p.n == len(p.replies) {
		p.replies = append(p.replies, new(reply))
	}
	r := p.replies[p.n]
	r.reset()
	p.n++
	return r
}

func (p *page) each(fn func(value []byte) error) error {
	for _, r := range p.replies[:p.n] {
		if err := r.each(fn); err != nil {
			return err
		}
	}
	for _, v := range p.values {
		if err := fn(unsafe.Slice(unsafe.StringData(v), len(v))); err != nil {
			return err
		}
	}
	return nil
}

// reply is one command's answer, an array of bulk strings in RESP. The client's own parser would make a string of each.
// As it copies them out, it writes what stands between them and lets values, whose lengths it knows, be read from it.
type reply struct {
	// values are the bulk strings one after the other, each with its line's end; ends is where each ends.
	values []byte
	ends   []int
	// head is the first line: "*12", or an error.
	head []byte
}

const lineEnd = len("\r\n")

func (r *reply) reset() { r.values, r.ends, r.head = r.values[:0], r.ends[:0], r.head[:0] }

// Write takes the lines. But for the first they say what ReadFrom sees too.
func (r *reply) Write(b []byte) (int, error) {
	if len(r.head) == 0 {
		r.head = append(r.head, b...)
	}
	return len(b), nil
}

// ReadFrom takes one value.
func (r *reply) ReadFrom(from io.Reader) (int64, error) {
	limited, ok := from.(*io.LimitedReader)
	if !ok {
		return 0, fmt.Errorf("redis: a value comes as %T, not as one of known length", from)
	}
	at, n := len(r.values), int(limited.N)
	r.values = append(r.values, make([]byte, n)...)
	got, err := io.ReadFull(limited.R, r.values[at:])
	limited.N -= int64(got)
	r.ends = append(r.ends, len(r.values))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // io.CopyN, which calls this, says so itself
	}
	return int64(got), err
}

// refused says that Redis answered with an error, or with something else than was asked for.
func (r *reply) refused() bool {
	n, ok := count(r.head)
	return !ok || n != len(r.ends)
}

func (r *reply) each(fn func(value []byte) error) error {
	from := 0
	for _, end := range r.ends {
		if err := fn(r.values[from : end-lineEnd : end-lineEnd]); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// count reads the first line of an array.
func count(head []byte) (n int, ok bool) {
	digits, ok := bytes.CutPrefix(head, []byte("*"))
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(string(digits))
	return n, err == nil
}
