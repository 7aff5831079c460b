package simulator

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// faultyListener makes connections that a black hole or a drip can take. They sit below TLS, so a fault may also
// strike a handshake.
type faultyListener struct {
	net.Listener
	endpoint *endpoint
}

func (l *faultyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	made := &conn{Conn: c, endpoint: l.endpoint, closed: make(chan struct{})}
	made.from, _, _ = net.SplitHostPort(c.RemoteAddr().String()) // always an address and a port
	made.one.Store(l.endpoint.service.platform() == "apns")
	return made, nil
}

// conn is a client's connection.
type conn struct {
	net.Conn
	endpoint *endpoint
	closing  sync.Once
	closed   chan struct{}
	from     string // the client's address, without its port
	// code is the RST_STREAM code of the last reset that struck here.
	code atomic.Uint32

	Session
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	// The read may have waited in the kernel since before the hole opened: its bytes fall in too.
	if _, held := c.hold(); held != nil {
		return 0, held
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	for n := 0; ; {
		drip, err := c.hold()
		if err != nil {
			return n, err
		}
		if drip == nil {
			m, err := c.Conn.Write(b[n:])
			return n + m, err
		}
		// Timers are not worth more than some hundred ticks a second: faster drips are of several bytes.
		drop := min(len(b)-n, 1+int(drip.PerSecond/100))
		m, err := c.Conn.Write(b[n : n+drop])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
		if err := c.pause(drip, drop); err != nil {
			return n, err
		}
	}
}

// hold waits out a black hole, and returns the drip in force if there is one.
func (c *conn) hold() (drip *faultState, err error) {
	for {
		f := c.endpoint.sim.faults.onConnection(c.endpoint.service)
		if f == nil {
			return nil, nil
		}
		f.count()
		if f.Kind == Drip {
			return f, nil
		}
		select {
		case <-f.lifted:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
}

// pause is the time that a drop of so many bytes takes.
func (c *conn) pause(drip *faultState, bytes int) error {
	t := time.NewTimer(time.Duration(float64(time.Second) * float64(bytes) / drip.PerSecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-drip.lifted:
	case <-c.closed:
		return net.ErrClosed
	}
	return nil
}

func (c *conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// cut ends the connection with a TCP reset.
func (c *conn) cut() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // then it ends with a FIN
	}
	_ = c.Close() // it may be closed already
}
