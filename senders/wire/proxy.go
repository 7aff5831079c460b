package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxProxyAnswer bounds what a proxy may say before the tunnel is open.
const maxProxyAnswer = 64 << 10

// tunnel opens a connection to the host through a proxy (RFC 9110 section 9.3.6).
func (c *Client) tunnel(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	port := proxy.Port()
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, c.proxyError(proxy, fmt.Errorf("its scheme is %q: only http and https are known", proxy.Scheme))
	case port != "":
	case proxy.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	nc, err := c.dial(ctx, net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if proxy.Scheme == "https" {
		config := c.tls()
		config.ServerName, config.NextProtos, config.Certificates = proxy.Hostname(), nil, nil
		config.GetClientCertificate = nil
		secure := tls.Client(nc, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, c.proxyError(proxy, err)
		}
		nc = secure
	}
	through, err := c.ask(ctx, nc, proxy)
	if err != nil {
		_ = nc.Close()
		return nil, c.proxyError(proxy, err)
	}
	return through, nil
}

// ask says CONNECT.
func (c *Client) ask(ctx context.Context, nc net.Conn, proxy *url.URL) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: c.addr}, Host: c.addr, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(nc); err != nil {
		return nil, err
	}
	in := bufio.NewReader(io.LimitReader(nc, maxProxyAnswer))
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered CONNECT with %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if !stop() {
		return nil, ctx.Err()
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if in.Buffered() > 0 {
		return nil, fmt.Errorf("it sent %d bytes of its own into the tunnel", in.Buffered()) // TLS has the client speak first
	}
	return nc, nil
}

// proxyError is a failed dial, as http.Transport calls it. The proxy's user and password are not in it.
func (c *Client) proxyError(proxy *url.URL, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("through the proxy %s: %w", proxy.Host, err)}
}
