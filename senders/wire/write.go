package wire

import (
	"math"
	"time"

	"golang.org/x/net/http2"

	"github.com/belfry/belfry/failpoint"
)

// writeSize is how much is gathered for one write: four full TLS records, less what a frame may be over.
const writeSize = 60 << 10

// write is the writer: it takes what waits, puts all frames into one buffer and writes that, for as long as there is anything.
func (c *conn) write() {
	defer close(c.written)
	for range c.wake {
		for {
			out, whole, last := c.next()
			handOver(c.invalid)
			clear(c.invalid)
			c.invalid = c.invalid[:0]
			if len(out) == 0 && !last {
				break
			}
			err := c.raw.send(c.net, out)
			for range whole {
				failpoint.Hit(failpoint.AfterWrite)
			}
			switch {
			case err != nil:
				c.cut(err)
				return
			case last:
				_ = c.net.Close()
				return
			}
		}
	}
}

// next is what to write now, with how many requests end in it; last: nothing comes after it.
func (c *conn) next() (out []byte, whole int, last bool) {
	c.mu.Lock()
	last = c.err != nil
	full := false
	if !last {
		full = c.gather()
		if len(c.out) > 0 {
			_ = c.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
	}
	whole, c.whole, c.replies = c.whole, 0, 0
	out = c.out
	c.out, c.flying = c.flying[:0], c.out
	c.mu.Unlock()
	if full {
		c.client.more()
	}
	return out, whole, last
}

// gather puts what there is to send into out, up to about writeSize. It is true when more waits than this connection can
// take. It must be called with mu held.
func (c *conn) gather() (full bool) {
	c.resume()
	for len(c.out) < writeSize {
		n := c.free()
		if n <= 0 {
			break
		}
		c.batch = c.client.take(c.batch[:0], min(n, 64), c.window, int64(writeSize-len(c.out)), c.pieces())
		if len(c.batch) == 0 {
			break
		}
		for i, e := range c.batch {
			if !c.open(e) {
				c.client.repeat(c.batch[i:])
				break
			}
		}
	}
	c.publish()
	if needs := c.client.needs(); needs >= 0 && (c.free() <= 0 || c.window < needs) {
		c.room.Store(0)
		return true
	}
	return false
}

// pieces is the size above which a body is begun although the window has no room for all of it: any when nothing else could
// open the window, and otherwise one that no window may ever have room for, if it is the only such.
func (c *conn) pieces() int64 {
	switch {
	case c.streams.live == 0:
		return 0
	case len(c.partial) == 0:
		return defaultWindow
	default:
		return math.MaxInt64
	}
}

// open starts a request. It is false when the connection's stream ids are used up. It must be called with mu held.
func (c *conn) open(e entry) bool {
	code, err := c.block.encode(e.req)
	if err != nil {
		c.invalid = append(c.invalid, Result{Request: e.req, Err: err, via: c})
		return true
	}
	s := c.streams.open()
	if s == nil {
		if c.drain() {
			c.client.leave(c, true)
		}
		return false
	}
	failpoint.Hit(failpoint.BeforeWrite)
	c.asked = true
	s.req, s.tries = e.req, e.tries
	s.window, s.credit = c.first, defaultWindow
	s.unsent = len(e.req.Body)
	c.headers(s.id, code, s.unsent == 0)
	if s.unsent == 0 {
		c.whole++
		return true
	}
	if c.body(s); s.unsent > 0 {
		c.partial = append(c.partial, s.id)
	}
	return true
}

// headers writes a header block, in as many frames as it takes.
func (c *conn) headers(id uint32, block []byte, end bool) {
	n := min(len(block), maxFrame)
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block),
	})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), maxFrame)
		_ = c.frames.WriteContinuation(id, n == len(block), block[:n])
	}
}

// body writes as much of a stream's body as the windows permit (RFC 9113 section 6.9).
func (c *conn) body(s *stream) {
	for s.unsent > 0 {
		n := int(min(int64(s.unsent), c.window, s.window, maxFrame))
		if n <= 0 {
			return
		}
		from := len(s.req.Body) - s.unsent
		_ = c.frames.WriteData(s.id, n == s.unsent, s.req.Body[from:from+n])
		s.unsent -= n
		s.window -= int64(n)
		c.window -= int64(n)
	}
	c.whole++
}

// resume goes on with the bodies that a window stopped, oldest first.
func (c *conn) resume() {
	kept := c.partial[:0]
	for _, id := range c.partial {
		s := c.streams.get(id)
		if s == nil || s.state != open {
			continue
		}
		if len(c.out) < writeSize {
			c.body(s)
		}
		if s.unsent > 0 {
			kept = append(kept, id)
		}
	}
	c.partial = kept
}
