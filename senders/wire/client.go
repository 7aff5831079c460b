package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
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

// Client keeps connections to one authority. It is safe for concurrent use.
type Client struct{}

// carrier is what took a request.
type carrier interface{ retire() }

// New makes a client. It dials when there is something to send.
func New(o Options) *Client { return &Client{} }

// Send takes requests and never blocks. What no stream is free for waits in order; the caller bounds it by its own limit in
// flight. The requests of one call share one write where they fit.
func (c *Client) Send(batch []*Request) {
	for _, r := range batch {
		r.Handler.Answered([]Result{{Request: r, Err: ErrClosed}})
	}
}

// Retire lets no new request on the connection that r came on; what is in flight there still ends there. It is done once for
// each connection, however often it is called.
func (c *Client) Retire(r *Result) {
	if r.via != nil {
		r.via.retire()
	}
}

// Close ends all: requests in flight end with ErrClosed. It returns when the client's goroutines have ended.
func (c *Client) Close() {}
