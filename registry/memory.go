package registry

import (
	"net"
	"sync"
	"time"
)

// dialled is a connection to a server in this process that no socket carries: nothing else on the machine can reach it, and
// it needs no descriptor. What is written waits here for the server to read it: the server answers each command before it
// reads the next, and the client reads no answer before it has written all of its own, so that on a bare net.Pipe the two
// would wait for each other. What waits is at most what one caller sends at once.
type dialled struct {
	net.Conn
	mu      sync.Mutex
	moved   sync.Cond
	waiting []byte
	err     error // of the server's end, or that this one is closed
	ended   chan struct{}
}

func dialledOn(c net.Conn) *dialled {
	d := &dialled{Conn: c, ended: make(chan struct{})}
	d.moved.L = &d.mu
	go d.carry()
	return d
}

// carry hands on what was written until the connection ends.
func (d *dialled) carry() {
	defer close(d.ended)
	for {
		d.mu.Lock()
		for len(d.waiting) == 0 && d.err == nil {
			d.moved.Wait()
		}
		b, err := d.waiting, d.err
		d.waiting = nil
		d.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := d.Conn.Write(b); err != nil {
			d.end(err)
			return
		}
	}
}

func (d *dialled) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.moved.Signal()
}

// SetWriteDeadline does nothing, for Write does not wait.
func (d *dialled) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is one for reading.
func (d *dialled) SetDeadline(t time.Time) error { return d.Conn.SetReadDeadline(t) }

// Write takes all of b.
func (d *dialled) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return 0, d.err
	}
	d.waiting = append(d.waiting, b...)
	d.moved.Signal()
	return len(b), nil
}

// Close ends the connection, and returns when nothing of it runs any more.
func (d *dialled) Close() error {
	d.end(net.ErrClosed)
	err := d.Conn.Close()
	<-d.ended
	return err
}
