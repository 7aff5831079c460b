package registry

import (
	"bytes"
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
	r.buf = r.buf[:0]
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

// reply is one command's answer as it came, in RESP. The client's own parser would make a string of each value.
type reply struct{ buf []byte }

func (r *reply) Write(b []byte) (int, error) {
	r.buf = append(r.buf, b...)
	return len(b), nil
}

// ReadFrom takes what the client copies: one value at a time, of a length that it knows.
func (r *reply) ReadFrom(from io.Reader) (int64, error) {
	limited, ok := from.(*io.LimitedReader)
	if !ok {
		return io.Copy(writeOnly{r}, from)
	}
	at, n := len(r.buf), int(limited.N)
	r.buf = append(r.buf, make([]byte, n)...)
	got, err := io.ReadFull(limited.R, r.buf[at:])
	limited.N -= int64(got)
	r.buf = r.buf[:at+got]
	if err == io.ErrUnexpectedEOF { //nolint:errorlint // ReadFull wraps nothing
		err = nil // CopyN says so
	}
	return int64(got), err
}

// writeOnly hides ReadFrom from io.Copy, which would call it again.
type writeOnly struct{ io.Writer }

// refused says that Redis answered with an error, or with nothing of what was asked for.
func (r *reply) refused() bool { return len(r.buf) == 0 || r.buf[0] != '*' }

// each calls fn with the values of an array of bulk strings: "*2\r\n$3\r\nabc\r\n$0\r\n\r\n".
func (r *reply) each(fn func(value []byte) error) error {
	count, b, ok := length(r.buf, '*')
	for range count {
		var n int
		if n, b, ok = length(b, '$'); !ok || len(b) < n+2 {
			break
		}
		if err := fn(b[:n:n]); err != nil {
			return err
		}
		b = b[n+2:]
	}
	if !ok || len(b) > 0 {
		return fmt.Errorf("redis: an answer of %d bytes is not an array of %d values", len(r.buf), count)
	}
	return nil
}

// length reads a line: what kind of answer, and how long.
func length(b []byte, kind byte) (n int, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 3 || b[0] != kind {
		return 0, nil, false
	}
	n, err := strconv.Atoi(unsafe.String(&b[1], end-2))
	return n, b[end+1:], err == nil && n >= 0
}
