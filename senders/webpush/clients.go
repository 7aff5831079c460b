package webpush

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/belfry/belfry/senders/wire"
)

const (
	// maxClients bounds an app's clients, and with them the goroutines and connections that whoever may register a device can
	// make us open. A browser's push service has one for each class; Windows' has some dozens of hosts.
	maxClients = 256
	// clientIdle is how long one must have been unused to make room for another. It is longer than any request may take (one
	// minute, see the configuration), so nothing is in flight.
	clientIdle = 5 * time.Minute
	// maxConns bounds a client's connections: with the 100 streams that Google's servers allow on each they carry the ceiling
	// of an origin with room to spare.
	maxConns = 16
)

// clients are an app's, one for each origin and class: an urgent message shares no connection with a campaign.
type clients struct {
	allow allowed
	tls   *tls.Config

	mu     sync.Mutex // guards what follows
	open   map[place]*client
	closed bool
	going  sync.WaitGroup
}

type place struct {
	origin string
	urgent bool
}

type client struct {
	*wire.Client
	used time.Time
}

func newClients(allow allowed, config *tls.Config) *clients {
	return &clients{allow: allow, tls: config, open: make(map[place]*client)}
}

// of is the client for an origin and class, or nil where package wire is not for: plain http, and more origins at a time
// than there is room for.
func (c *clients) of(origin string, urgent bool, now time.Time) *wire.Client {
	authority, secure := strings.CutPrefix(origin, "https://")
	if !secure {
		return nil
	}
	at := place{origin, urgent}
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.open[at]
	if one == nil {
		if c.closed || len(c.open) >= maxClients && !c.evict(now) {
			return nil
		}
		at.origin = strings.Clone(origin) // it may lie in a record, whose buffer is used again
		one = &client{Client: c.dial(strings.Clone(authority))}
		c.open[at] = one
	}
	one.used = now
	return one.Client
}

// evict makes room if a client has not been used for long. It must be called with mu held.
func (c *clients) evict(now time.Time) bool {
	for at, one := range c.open {
		if now.Sub(one.used) > clientIdle {
			delete(c.open, at)
			c.going.Go(one.Close)
			return true
		}
	}
	return false
}

// dial makes a client for an authority. The guard judges by the name that was asked for, and where that is not allowed by the
// address that is dialed. No proxy: it would resolve names itself.
func (c *clients) dial(authority string) *wire.Client {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.Trim(authority, "[]"), "443"
	}
	dialer := guarded
	if c.allow[net.JoinHostPort(host, port)] {
		dialer = free
	}
	return wire.New(wire.Options{
		Addr: authority, TLS: c.tls, MaxConns: maxConns,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
	})
}

// close ends what is in flight with wire.ErrClosed, and waits for it.
func (c *clients) close() {
	c.mu.Lock()
	c.closed = true
	for _, one := range c.open {
		c.going.Go(one.Close)
	}
	clear(c.open)
	c.mu.Unlock()
	c.going.Wait()
}
