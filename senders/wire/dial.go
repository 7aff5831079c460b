package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// dialTimeout bounds a dial up to the peer's first SETTINGS.
const dialTimeout = 10 * time.Second

// split reads host or host:port.
func split(authority string) (host, addr string) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.Trim(authority, "[]"), "443" // an IPv6 address stands in brackets (RFC 3986 section 3.2.2)
	}
	return host, net.JoinHostPort(host, port)
}

// connect opens a connection, and reads from it until it ends.
func (c *Client) connect() {
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	raw, secure, where, err := c.open(ctx)
	if err != nil {
		cancel()
		c.failed(nil, err)
		return
	}
	if p := secure.ConnectionState().NegotiatedProtocol; p != "h2" {
		cancel()
		_ = secure.Close()
		c.fallBack()
		return
	}
	k := newConn(c, raw, secure, where)
	deadline, _ := ctx.Deadline()
	cancel()
	if !c.begun(k) {
		_ = raw.Close()
		c.failed(k, ErrClosed)
		return
	}
	k.run(deadline)
}

// open dials, directly or through a proxy, and shakes hands. where is the address, when it was chosen here.
func (c *Client) open(ctx context.Context) (raw *batched, secure *tls.Conn, where string, err error) {
	proxy, err := c.proxy()
	if err != nil {
		return nil, nil, "", &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	var below net.Conn
	if proxy != nil {
		below, err = c.tunnel(ctx, proxy)
	} else {
		below, where, err = c.dialSpread(ctx)
	}
	if err != nil {
		return nil, nil, "", err
	}
	raw = newBatched(below)
	config := c.tls()
	config.NextProtos = []string{"h2", "http/1.1"}
	config.DynamicRecordSizingDisabled = true // records of 16 KiB from the start: we write much at once
	secure = tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		c.fault(where)
		return nil, nil, "", err
	}
	return raw, secure, where, nil
}

func (c *Client) tls() *tls.Config {
	config := &tls.Config{}
	if c.o.TLS != nil {
		config = c.o.TLS.Clone()
	}
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12 // RFC 9113 section 9.2
	}
	if config.ServerName == "" {
		config.ServerName = c.host
	}
	return config
}

// dial opens a TCP connection with the caller's function.
func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	if c.o.Dial != nil {
		return c.o.Dial(ctx, "tcp", addr)
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
}

// addressTimeout is how long an address may take while there is another to try.
const addressTimeout = 2 * time.Second

// dialSpread tries the host's addresses in the order of spreadOver.
func (c *Client) dialSpread(ctx context.Context) (net.Conn, string, error) {
	_, port, _ := net.SplitHostPort(c.addr)
	hosts := []string{c.host}
	if net.ParseIP(c.host) == nil {
		var err error
		if hosts, err = net.DefaultResolver.LookupHost(ctx, c.host); err != nil {
			return nil, "", &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	addrs := c.spreadOver(hosts, port)
	var faults []error
	for i, addr := range addrs {
		nc, err := c.dialWithin(ctx, addr, i == len(addrs)-1)
		if err == nil {
			return nc, addr, nil
		}
		faults = append(faults, err)
		c.fault(addr)
	}
	if len(faults) == 1 {
		return nil, "", faults[0]
	}
	return nil, "", errors.Join(faults...)
}

func (c *Client) dialWithin(ctx context.Context, addr string, last bool) (net.Conn, error) {
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, addressTimeout)
		defer cancel()
	}
	return c.dial(ctx, addr)
}

// maxFaults bounds the addresses of which failures are remembered: names may resolve to others every minute.
const maxFaults = 256

func (c *Client) fault(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) >= maxFaults {
		clear(c.faults)
	}
	c.faults[addr]++
}

// spreadOver is the addresses in the order to try: those first that failed least since they last worked, and of these the
// ones that fewest of the connections go to.
func (c *Client) spreadOver(hosts []string, port string) []string {
	addrs := make([]string, len(hosts))
	for i, host := range hosts {
		addrs[i] = net.JoinHostPort(host, port)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	used := map[string]int{}
	for _, k := range c.conns {
		used[k.where]++
	}
	slices.SortStableFunc(addrs, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.faults[a], c.faults[b]), cmp.Compare(used[a], used[b]))
	})
	return addrs
}

// proxy is the proxy to go through, or nil.
func (c *Client) proxy() (*url.URL, error) {
	if c.o.Proxy == nil {
		return nil, nil
	}
	return c.o.Proxy(&http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: c.o.Addr}, Host: c.o.Addr})
}
