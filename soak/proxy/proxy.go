// Package proxy is a TCP proxy that can make a network bad while connections run through it: slow, narrow, half-open,
// torn. Know Proxy, and Fault for what it can do to it.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what is wrong with the network, in both directions. The zero Fault is a good network.
type Fault struct {
	// Latency is added to each piece of data.
	Latency time.Duration
	// PerSecond narrows each direction of each connection to so many bytes a second.
	PerSecond int
	// HalfOpen lets nothing through, and tells nobody: what is sent is lost. When it is lifted, connections that were
	// there end with a reset, as when a machine has come back that knows nothing of them.
	HalfOpen bool
	// SlowClose is how much later the other side learns that one has closed.
	SlowClose time.Duration
}

// Proxy forwards connections to one address. It is safe for concurrent use.
type Proxy struct {
	target   string
	listener net.Listener
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
	struck   atomic.Int64

	mu      sync.Mutex // guards all below
	fault   Fault
	changed chan struct{} // closed and replaced with each fault
	links   map[*link]struct{}
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	lost           atomic.Bool // it was half-open
}

// Listen starts a proxy. A target that is not there makes connections end at once, as it would without a proxy.
func Listen(address, target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	p := &Proxy{target: target, listener: listener, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where it listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Struck counts what faults have done: pieces of data delayed or lost, closes put off, connections reset.
func (p *Proxy) Struck() int64 { return p.struck.Load() }

// Set makes the network as bad as f says, in place of what was wrong before.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	if f.HalfOpen {
		return
	}
	for l := range p.links {
		if l.lost.Load() {
			p.reset(l)
		}
	}
}

// Reset tears all connections.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		p.reset(l)
	}
}

func (p *Proxy) reset(l *link) {
	p.struck.Add(1)
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed anyway
		}
		_ = c.Close()
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close()
	p.Reset()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files: some will be closed
			if !p.sleep(10 * time.Millisecond) {
				return
			}
			continue
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	// A half-open network answers no SYN; here the client gets a connection that stays silent.
	if !p.pass() {
		return
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	l := &link{client: client, server: server}
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()
	if p.ctx.Err() != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, server, client) })
	both.Go(func() { p.pump(l, client, server) })
	both.Wait()
}

// pump moves data one way until either side is gone.
func (p *Proxy) pump(l *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.forward(l, to, buffer[:n]) {
			return
		}
		if err == nil {
			continue
		}
		f, _ := p.now()
		if f.SlowClose > 0 {
			p.struck.Add(1)
			p.sleep(f.SlowClose)
		}
		if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
			_ = tcp.CloseWrite() // the other direction may go on
		} else {
			_ = to.Close()
		}
		return
	}
}

// forward writes one piece, as the fault in force lets it.
func (p *Proxy) forward(l *link, to net.Conn, data []byte) bool {
	for len(data) > 0 {
		f, _ := p.now()
		if f.HalfOpen || l.lost.Load() {
			l.lost.Store(true)
			p.struck.Add(1)
			return p.pass() // and then it is reset
		}
		piece := data
		wait := f.Latency
		if f.PerSecond > 0 {
			piece = data[:min(len(data), max(1, f.PerSecond/20))]
			wait += time.Duration(len(piece)) * time.Second / time.Duration(f.PerSecond)
		}
		if wait > 0 {
			p.struck.Add(1)
			if !p.sleep(wait) {
				return false
			}
		}
		if _, err := to.Write(piece); err != nil {
			return false
		}
		data = data[len(piece):]
	}
	return true
}

func (p *Proxy) now() (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

// pass waits until the network is not half-open, or says false when the proxy ends.
func (p *Proxy) pass() bool {
	for {
		f, changed := p.now()
		if !f.HalfOpen {
			return p.ctx.Err() == nil
		}
		select {
		case <-p.ctx.Done():
			return false
		case <-changed:
		}
	}
}

func (p *Proxy) sleep(d time.Duration) bool {
	select {
	case <-p.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
