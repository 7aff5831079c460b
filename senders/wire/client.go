package wire

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/failpoint"
)

// Options says where a client's connections go, and how.
type Options struct {
	// Addr is the authority of the URL, host or host:port. The port is 443 by default.
	Addr string
	// TLS is cloned. The protocols are set by the client, and the server's name when it is empty.
	TLS *tls.Config
	// Proxy chooses the proxy as http.Transport's does; nil: none. It takes http and https URLs, and user and password
	// from them.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens a TCP connection, to an address of the host or to the proxy; nil: a net.Dialer of 10 s.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// OneUntilAnswered has a new connection carry one stream until its first answer, as APNs wants it.
	OneUntilAnswered bool
	// MaxConns bounds the connections that take requests, from 1.
	MaxConns int
}

const (
	// maxTries is how many connections a request is put on when each says GOAWAY below it: it was certainly not processed.
	maxTries = 3
	// backoffFirst and backoffMost bound the pause after a failed dial, which doubles with each in a row.
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// errLate ends what is past its deadline.
var errLate = os.ErrDeadlineExceeded

// Client keeps connections to one authority. It is safe for concurrent use.
//
// Requests wait in one queue, and connections take from it as they have streams free: so a slow connection takes less, and
// what waits is on none that may fail. A connection that has taken what it can lets the next one know; when all are full,
// one more is dialed.
type Client struct {
	o    Options
	host string // of Addr, without the port
	addr string // host:port

	ctx    context.Context // ends with the client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// waiting is the length of queue, for a connection that only wants to know whether to look.
	waiting atomic.Int64
	// poke wakes the watch when it rests.
	poke chan struct{}
	// lost is for how long, in ns, this process has not run: see now.
	lost atomic.Int64

	// mu guards what follows. It may be taken with a connection's held, not the other way round.
	mu        sync.Mutex
	queue     queue
	conns     []*conn                              // those that take requests
	all       []*conn                              // and those that are being opened, or only end what they have
	plain     *plain                               // set when the host speaks only HTTP/1.1
	exchanges map[*Request]context.CancelCauseFunc // those that are out so, and what ends each
	turn      int                                  // the connection that is asked first
	dialing   bool
	failures  int            // dials in a row
	faults    map[string]int // the same for each address of the host
	notBefore time.Time      // the next dial
	watching  bool
	due       time.Time // the watch's next look
	resting   bool      // the watch is slow: nothing waits and nothing is in flight
	sends     int       // calls of Send
	closed    bool

	// firstStream is 1, but for tests of what happens at the last.
	firstStream uint32
}

// New makes a client. It dials when there is something to send.
func New(o Options) *Client {
	c := &Client{o: o, poke: make(chan struct{}, 1), faults: make(map[string]int), exchanges: map[*Request]context.CancelCauseFunc{}, firstStream: 1}
	c.host, c.addr = split(o.Addr)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Send takes requests and never blocks. What no stream is free for waits in order; the caller bounds it by its own limit in
// flight. The requests of one call share one write where they fit. On a closed client each ends at once, within the call.
func (c *Client) Send(batch []*Request) {
	if len(batch) == 0 {
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		var gone []Result
		for _, r := range batch {
			gone = append(gone, Result{Request: r, Err: ErrClosed})
		}
		handOver(gone)
		return
	}
	now := c.now()
	for _, r := range batch {
		if r.due = (time.Time{}); r.Timeout > 0 {
			r.due = now.Add(r.Timeout)
		}
		c.queue.push(entry{req: r})
	}
	c.waiting.Store(int64(c.queue.n))
	c.watchLocked()
	c.spread()
	c.mu.Unlock()
}

// watchLocked has the watch run, and at its full pace.
func (c *Client) watchLocked() {
	if !c.watching {
		c.watching = true
		c.wg.Go(c.watch)
	}
	c.sends++
	if c.resting {
		c.resting = false
		select {
		case c.poke <- struct{}{}:
		default: // it is on its way already
		}
	}
}

// spread sees to it that somebody takes what waits. It must be called with mu held.
func (c *Client) spread() {
	if c.queue.n == 0 || c.closed {
		return
	}
	if c.plain != nil {
		c.plain.spread()
		return
	}
	for range c.conns {
		c.turn = (c.turn + 1) % len(c.conns)
		if k := c.conns[c.turn]; k.room.Load() > 0 {
			k.nudge()
			return
		}
	}
	c.dialMore()
}

// more is spread for a connection that is full.
func (c *Client) more() {
	c.mu.Lock()
	c.spread()
	c.mu.Unlock()
}

// dialMore opens a connection if there may be one more: one at a time, none while a new one still waits for its first
// answer, and none soon after a failure. It must be called with mu held.
func (c *Client) dialMore() {
	if c.closed || c.dialing || c.plain != nil || len(c.conns) >= max(1, c.o.MaxConns) || time.Now().Before(c.notBefore) {
		return
	}
	for _, k := range c.conns {
		if c.o.OneUntilAnswered && !k.proven.Load() {
			return
		}
	}
	c.dialing = true
	c.wg.Go(c.connect)
}

// take moves requests from the queue to dst: at most n, and no more bytes of bodies than budget, and than the peer's window
// has room for. The first may be larger if it is larger than pieces: then it goes as the window opens.
func (c *Client) take(dst []entry, n int, window, budget, pieces int64) []entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(dst) < n && c.queue.n > 0 {
		size := int64(len(c.queue.at(0).req.Body))
		switch {
		case len(dst) == 0 && (size <= window || size > pieces && window > 0):
		case size <= window && size <= budget:
		default:
			n = len(dst)
			continue
		}
		window, budget = window-size, budget-size
		dst = append(dst, c.queue.pop())
	}
	c.waiting.Store(int64(c.queue.n))
	return dst
}

// needs is the size of the next body, or -1 when nothing waits.
func (c *Client) needs() int64 {
	if c.waiting.Load() == 0 {
		return -1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.n == 0 {
		return -1
	}
	return int64(len(c.queue.at(0).req.Body))
}

// repeat puts requests that were certainly not processed at the queue's head.
func (c *Client) repeat(entries []entry) {
	c.mu.Lock()
	for i := len(entries) - 1; i >= 0; i-- {
		c.queue.pushFront(entries[i])
	}
	c.waiting.Store(int64(c.queue.n))
	c.spread()
	c.mu.Unlock()
}

// begun is told of a connection before anything else happens on it. It is false when the client was closed meanwhile.
func (c *Client) begun(k *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, k)
	return !c.closed
}

// joined counts a connection in that has the peer's first SETTINGS.
func (c *Client) joined(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialing = false
	delete(c.faults, k.where)
	c.conns = append(c.conns, k)
	c.spread()
}

// leave takes a connection out of those that get requests. When it was in use, another is dialed at once.
func (c *Client) leave(k *conn, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !remove(&c.conns, k) {
		return
	}
	if busy && len(c.conns) == 0 {
		c.dialMore()
	}
	c.spread()
}

// over forgets a connection that has ended. One that never answered what it was asked counts as a failed dial.
func (c *Client) over(k *conn, barren bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	remove(&c.conns, k)
	remove(&c.all, k)
	if barren {
		c.pause()
	}
	c.spread()
}

// pause puts the next dial off. It must be called with mu held.
func (c *Client) pause() {
	wait := min(backoffFirst<<min(c.failures, 10), backoffMost)
	c.failures++
	c.notBefore = time.Now().Add(wait + rand.N(wait/4))
}

// proved is told when a connection has its first answer.
func (c *Client) proved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.notBefore = 0, time.Time{}
	c.spread()
}

// failed ends a dial, and with it what waits, unless another connection can take it. k is nil when it did not get so far.
func (c *Client) failed(k *conn, err error) {
	var gone []Result
	c.mu.Lock()
	if remove(&c.all, k) {
		c.faults[k.where]++
	}
	c.dialing = false
	if !c.closed {
		c.pause()
		if len(c.conns) == 0 {
			gone = c.drain(err)
		}
	}
	c.mu.Unlock()
	handOver(gone)
}

// drain ends what waits. It must be called with mu held.
func (c *Client) drain(err error) []Result {
	var gone []Result
	for c.queue.n > 0 {
		gone = append(gone, Result{Request: c.queue.pop().req, Err: err})
	}
	c.waiting.Store(0)
	return gone
}

// Retire lets no new request on the connection that r came on; what is in flight there still ends there. It is done once for
// each connection, however often it is called.
func (c *Client) Retire(r *Result) {
	if r.via != nil {
		r.via.retire()
	}
}

// Close ends all: requests in flight end with ErrClosed. It returns when the client's goroutines have ended, so a Handler
// must not call it.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	gone := c.drain(ErrClosed)
	all := slices.Clone(c.all)
	c.mu.Unlock()
	c.cancel()
	for _, k := range all {
		k.shut(ErrClosed)
	}
	handOver(gone)
	c.wg.Wait()
	if c.plain != nil { // nobody is left who would change it
		c.plain.transport.CloseIdleConnections()
	}
}

// answered hands over results of which some may be answers.
func (c *Client) answered(results []Result) {
	for i := range results {
		if results[i].Status > 0 {
			failpoint.Hit(failpoint.Answered)
		}
	}
	handOver(results)
}

// handOver gives results to their handlers, those in a row for the same one together.
func handOver(results []Result) {
	for len(results) > 0 {
		h, n := results[0].Request.Handler, 1
		for n < len(results) && results[n].Request.Handler == h {
			n++
		}
		h.Answered(results[:n])
		results = results[n:]
	}
}

func remove(from *[]*conn, k *conn) bool {
	n := len(*from)
	*from = slices.DeleteFunc(*from, func(other *conn) bool { return other == k })
	return len(*from) < n
}
