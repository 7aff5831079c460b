package wire

import (
	"cmp"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// maxStreams bounds the streams of a connection, whatever the peer permits.
	maxStreams = 4096
	// defaultWindow is the window of a connection and a stream before anything else is said (RFC 9113 section 6.9.2), and
	// what we let each stream have.
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
	// connWindow is what we let the peer send on a connection.
	connWindow = 16 << 20
	// maxList bounds a response's fields, decoded and encoded (RFC 9113 section 6.5.2).
	maxList = 16 << 10
	// maxFrame is the largest frame that either side may send without asking (RFC 9113 section 4.2). Ours are never larger.
	maxFrame = 16 << 10
	// writeTimeout is how long the peer may take nothing at all.
	writeTimeout = 15 * time.Second
	// lastWords is how long the peer may take for our GOAWAY.
	lastWords = time.Second
)

// errDone closes a connection that has nothing more to do.
var errDone = errors.New("the connection is not used any more")

// carrier is what takes requests: an HTTP/2 connection, or HTTP/1.1.
type carrier interface{ retire() }

// conn is one HTTP/2 connection. Its reader owns it and runs until it ends; its writer takes requests from the client and
// writes all that there is in one piece. Both, and the watch, meet under mu.
type conn struct {
	client *Client
	raw    *batched
	net    net.Conn // what speaks through raw: TLS, or raw itself in tests
	where  string

	wake    chan struct{}
	written chan struct{} // closed when the writer has ended
	// room is how many requests could be taken, for the client.
	room   atomic.Int32
	proven atomic.Bool // there was an answer

	reader reader
	// invalid are the writer's own results.
	invalid []Result

	// mu guards what follows.
	mu      sync.Mutex
	frames  *http2.Framer // writes to out
	out     buffer
	flying  buffer // out before the last swap: the writer's while it writes
	block   *block
	streams streams
	partial []uint32 // streams whose body is not all written
	batch   []entry
	whole   int // requests whose last frame is in out
	replies int // frames in out that the peer made us write

	ready  bool   // the peer's first SETTINGS are here
	limit  uint32 // its SETTINGS_MAX_CONCURRENT_STREAMS
	window int64  // what it lets us send
	first  int64  // its SETTINGS_INITIAL_WINDOW_SIZE

	asked    bool // something was sent
	draining bool // takes no new requests
	goAway   *GoAwayError
	err      error // why it ends; set once

	ping pings
	// used is when a stream was last open, to a tick of the watch.
	used time.Time
}

// buffer is an io.Writer for a Framer.
type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func newConn(c *Client, raw *batched, through net.Conn, where string) *conn {
	k := &conn{
		client: c, raw: raw, net: through, where: where,
		wake: make(chan struct{}, 1), written: make(chan struct{}),
		block: newBlock(c.o.Addr), streams: newStreams(c.firstStream),
		limit: maxStreams, window: defaultWindow, first: defaultWindow,
		used: c.now(),
	}
	k.ping.heard = true
	k.frames = http2.NewFramer(&k.out, nil)
	k.reader.init(k)
	k.out = append(k.out, http2.ClientPreface...)
	_ = k.frames.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxList},
	)
	_ = k.frames.WriteWindowUpdate(0, connWindow-defaultWindow)
	return k
}

// run opens the connection and reads until it ends. The peer has until then for its first SETTINGS.
func (c *conn) run(until time.Time) {
	_ = c.raw.SetReadDeadline(until)
	c.nudge()
	go c.write() // ends before this does: finish waits for it
	c.finish(c.reader.run())
}

// nudge wakes the writer.
func (c *conn) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// free is how many streams may be opened. It must be called with mu held.
func (c *conn) free() int {
	switch {
	case !c.ready || c.draining || c.err != nil:
		return 0
	case c.client.o.OneUntilAnswered && !c.proven.Load():
		return 1 - c.streams.live - c.ping.lingering()
	default:
		return int(min(c.limit, maxStreams)) - c.streams.live - c.ping.lingering()
	}
}

// publish tells the client how much room there is, and is true when there is some and something waits. It must be called with
// mu held.
func (c *conn) publish() bool {
	free := max(0, c.free())
	if c.window <= 0 {
		free = 0
	}
	c.room.Store(int32(free))
	return free > 0 && c.client.waiting.Load() > 0
}

// drain lets no new request on. It must be called with mu held; afterwards the client must be told with leave.
func (c *conn) drain() (first bool) {
	first = !c.draining
	c.draining = true
	c.room.Store(0)
	if c.streams.live == 0 {
		c.end(errDone, http2.ErrCodeNo)
	}
	return first
}

func (c *conn) retire() {
	c.mu.Lock()
	first := c.drain()
	busy := c.streams.live > 0
	c.mu.Unlock()
	if first {
		c.client.leave(c, busy)
	}
}

// end has the writer say GOAWAY and close the connection. It must be called with mu held.
func (c *conn) end(err error, code http2.ErrCode) {
	if c.err != nil {
		return
	}
	c.err = err
	c.room.Store(0)
	_ = c.frames.WriteGoAway(0, code, nil)
	_ = c.raw.SetWriteDeadline(time.Now().Add(lastWords))
	c.nudge()
}

// shut is end, for who does not hold mu.
func (c *conn) shut(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(err, http2.ErrCodeNo)
}

// cut is told by the writer that nothing can be written any more. What the peer said before is still read: it may have
// answered, or have said by GOAWAY what it did not begin.
func (c *conn) cut(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil { // it was ending, and these were its last words
		_ = c.raw.Close()
		return
	}
	c.err, c.draining = err, true
	c.room.Store(0)
	_ = c.raw.SetReadDeadline(time.Now().Add(lastWords))
	c.client.leave(c, true)
}

// finish ends the connection, and what was in flight on it.
func (c *conn) finish(err error) {
	var broken http2.ConnectionError
	polite := errors.As(err, &broken) // the peer is told what it did
	c.mu.Lock()
	switch {
	case polite:
		c.end(broken, http2.ErrCode(broken))
	case errors.Is(err, io.EOF):
		c.err = cmp.Or(c.err, io.ErrUnexpectedEOF)
	case alerted(err): // the cause of a write that failed, too
		c.err = err
	default:
		c.err = cmp.Or(c.err, err)
	}
	if c.goAway != nil && !polite && !errors.Is(c.err, ErrClosed) {
		c.err = c.goAway
	}
	c.room.Store(0)
	cause, ready, barren := c.err, c.ready, c.asked && !c.proven.Load()
	c.mu.Unlock()
	if ready {
		c.client.over(c, barren)
	}
	if !polite {
		_ = c.raw.Close()
	}
	c.nudge()
	<-c.written
	_ = c.raw.Close()
	if !ready {
		c.client.failed(c, cause)
	}
	c.mu.Lock()
	c.streams.all(func(s *stream) { c.lose(s, cause, localReset) })
	c.mu.Unlock()
	c.reader.handOver()
}

// alerted is whether the peer ended TLS and said why, as one does that does not take our certificate.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" // crypto/tls's name for an alert that it received
}

// lose ends a stream without a whole answer. A success whose body breaks off is a success all the same; a failure whose body
// breaks off has not said what failed. It must be called with mu held, by the reader.
func (c *conn) lose(s *stream, err error, how state) {
	c.reader.results = append(c.reader.results, c.lost(s, err))
	c.streams.close(s, how)
}

// lost is the result of such a stream.
func (c *conn) lost(s *stream, err error) Result {
	r := Result{Request: s.req, Err: err, Sent: true, via: c}
	if a := s.answer; a != nil && a.status < 300 {
		r.Err = nil
		r.fill(a)
	}
	return r
}

// reset tells the peer that a stream is over for us. Unless the peer has ended it as well, it counts as open until the peer
// has surely heard of it. It must be called with mu held.
func (c *conn) reset(id uint32, code http2.ErrCode, peerEnded bool) {
	_ = c.frames.WriteRSTStream(id, code)
	c.replies++
	if !peerEnded {
		c.ping.linger(c.frames)
	}
	c.nudge()
}

// fill puts an answer into its result.
func (r *Result) fill(a *answer) {
	r.Status, r.Header, r.Body, r.answer = a.status, Header{a.fields}, a.body, a
}

// late says that the deadline is past, by the client's time.
func (r *Request) late(now time.Time) bool { return !r.due.IsZero() && now.After(r.due) }
