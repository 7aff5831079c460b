// Package listen opens the TCP listeners of a process so that none of them dies of what passes: a process that is out of
// file descriptors for a moment goes on listening, and connections are bounded below what the system allows.
package listen

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An accept that fails for a moment is tried again after a wait that doubles between these.
const (
	minWait = 5 * time.Millisecond
	maxWait = time.Second
	// soundAfter is how long none may have failed before it is said that they are accepted again.
	soundAfter = 10 * time.Second
)

// Options of a listener.
type Options struct {
	// Name is what it is to an operator, in logs and errors: "the API".
	Name string
	// Limit bounds the connections at a time: at it, the one that has been silent the longest is closed for a new one, of those
	// that are not Busy if there are any. 0 is no bound.
	Limit int
	Log   *slog.Logger
}

// On listens on a TCP address, host:port, as o says.
func On(address string, o Options) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	return keep(l, o), nil
}

// keep makes a listener that outlives what passes, and bounds its connections. Accept returns an error only when l is
// closed or will never accept again; it is for one goroutine, the others are safe for concurrent use.
func keep(l net.Listener, o Options) net.Listener {
	return &listener{Listener: l, o: o, closed: make(chan struct{}), open: map[*conn]struct{}{}}
}

type listener struct {
	net.Listener
	o      Options
	closed chan struct{}
	once   sync.Once
	// told says that the log has it that accepts fail, and failed is when the last one did. Only Accept uses them.
	told   bool
	failed time.Time

	mu sync.Mutex
	// open are the connections that are bounded. It stays empty without a bound.
	open map[*conn]struct{}
	// full is true from the first connection that had to make room until there was some.
	full bool
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) Accept() (net.Conn, error) {
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		c, err := l.Listener.Accept()
		if err == nil {
			if l.told && time.Since(l.failed) >= soundAfter {
				l.told = false
				l.o.Log.Info("connections are accepted again", "listener", l.o.Name)
			}
			return l.bound(c), nil
		}
		if !passes(err) {
			return nil, err
		}
		l.failed = time.Now()
		if !l.told {
			l.told = true
			l.o.Log.Error("cannot accept connections, and tries again until it can: "+mend(err), "listener", l.o.Name, "err", err)
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// passes tells an accept that may succeed a moment later from a listener that is over (accept(2)).
func passes(err error) bool {
	var number syscall.Errno
	return !errors.Is(err, net.ErrClosed) && errors.As(err, &number) &&
		number != syscall.EBADF && number != syscall.EINVAL && number != syscall.ENOTSOCK
}

func mend(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return "this process has as many files and connections open as it may; raise its limit (ulimit -n, LimitNOFILE)"
	}
	if errors.Is(err, syscall.ENFILE) {
		return "the system has as many files open as it may; raise fs.file-max"
	}
	return "the system refuses"
}

// bound counts a connection, and makes room for it.
func (l *listener) bound(c net.Conn) net.Conn {
	if l.o.Limit <= 0 {
		return c
	}
	bounded := &conn{Conn: c, listener: l}
	bounded.moved()
	l.mu.Lock()
	var silent *conn
	if len(l.open) >= l.o.Limit {
		silent = l.mostSilent()
		delete(l.open, silent)
		if !l.full {
			l.full = true
			l.o.Log.Warn("as many connections are open as there may be, so the one that was silent the longest makes room for each new one",
				"listener", l.o.Name, "limit", l.o.Limit)
		}
	}
	l.open[bounded] = struct{}{}
	l.mu.Unlock()
	if silent != nil {
		_ = silent.Conn.Close() // whoever has it sees it end
	}
	return bounded
}

func (l *listener) mostSilent() (most *conn) {
	for c := range l.open {
		if most == nil || c.idle() && !most.idle() || c.idle() == most.idle() && c.last.Load() < most.last.Load() {
			most = c
		}
	}
	return most
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	if len(l.open) < l.o.Limit/2 {
		l.full = false
	}
}

// conn notes when anything last went over it.
type conn struct {
	net.Conn
	listener *listener
	last     atomic.Int64 // since started
	busy     atomic.Int32 // what is being done for it
}

// Busy says that something is being done for whoever is at the other end, until done is called: then the connection is not closed to
// make room while there is another. Connections of listeners with a bound have this method, below TLS.
func (c *conn) Busy() (done func()) {
	c.busy.Add(1)
	return sync.OnceFunc(func() { c.busy.Add(-1) })
}

func (c *conn) idle() bool { return c.busy.Load() == 0 }

var started = time.Now()

func (c *conn) moved() { c.last.Store(int64(time.Since(started))) }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.moved()
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.moved()
	return n, err
}

func (c *conn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}
