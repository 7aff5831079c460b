package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/belfry/belfry/failpoint"
)

// plainPerConn is how many HTTP/1.1 connections stand for one of HTTP/2.
const plainPerConn = 16

// plain carries requests over HTTP/1.1 by net/http, one at a time on each of its connections, for a host that speaks nothing
// newer. Until it is retired: then the next dial asks the host again.
type plain struct {
	client    *Client
	transport *http.Transport
	// workers take from the queue, and end when it is empty; the client's mu guards it.
	workers int
}

// fallBack is told that the host chose HTTP/1.1.
func (c *Client) fallBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialing = false
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	limit := plainPerConn * max(1, c.o.MaxConns)
	c.plain = &plain{client: c, transport: &http.Transport{
		Proxy: c.o.Proxy, DialContext: c.o.Dial, TLSClientConfig: c.tls(), TLSHandshakeTimeout: dialTimeout,
		Protocols: protocols, MaxConnsPerHost: limit, MaxIdleConnsPerHost: limit, IdleConnTimeout: idleFor,
		DisableCompression: true, MaxResponseHeaderBytes: maxList,
	}}
	c.failures = 0
	c.spread()
}

// spread starts workers for what waits. It must be called with the client's mu held.
func (p *plain) spread() {
	limit := min(plainPerConn*max(1, p.client.o.MaxConns), p.client.queue.n)
	for ; p.workers < limit; p.workers++ {
		p.client.wg.Go(p.work)
	}
}

func (p *plain) retire() {
	c := p.client
	c.mu.Lock()
	if c.plain == p {
		c.plain = nil
	}
	c.spread()
	c.mu.Unlock()
	p.transport.CloseIdleConnections()
}

func (p *plain) work() {
	for {
		e, more := p.next()
		if !more {
			return
		}
		handOver([]Result{p.exchange(e.req)})
	}
}

// exchanging gives a request a context that the watch ends when it is late, until over is called.
func (c *Client) exchanging(r *Request) (ctx context.Context, over func()) {
	ctx, end := context.WithCancelCause(c.ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchanges[r] = end
	return ctx, func() {
		end(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.exchanges, r)
	}
}

func (p *plain) next() (e entry, more bool) {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.n == 0 || c.plain != p {
		p.workers--
		if p.workers == 0 && c.plain != p {
			p.transport.CloseIdleConnections()
		}
		return entry{}, false
	}
	e = c.queue.pop()
	c.waiting.Store(int64(c.queue.n))
	return e, true
}

// exchange does one request.
func (p *plain) exchange(r *Request) Result {
	var sent atomic.Bool
	ctx, over := p.client.exchanging(r)
	defer over()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { failpoint.Hit(failpoint.AfterWrite) },
	})
	a, err := p.roundTrip(ctx, r)
	result := Result{Request: r, Sent: sent.Load(), via: p}
	switch {
	case err == nil:
		failpoint.Hit(failpoint.Answered)
		result.fill(a)
	case p.client.ctx.Err() != nil:
		result.Err = ErrClosed
	case errors.Is(context.Cause(ctx), errLate):
		result.Err = errLate
	default:
		result.Err = err
	}
	return result
}

func (p *plain) roundTrip(ctx context.Context, r *Request) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.client.o.Addr+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, errors.New("the path makes no URL") // err quotes it
	}
	for _, f := range r.Fields {
		req.Header.Add(f.Name, f.Value)
	}
	failpoint.Hit(failpoint.BeforeWrite)
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil {
		_, err = io.CopyN(io.Discard, resp.Body, maxRead)
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil && resp.StatusCode >= http.StatusMultipleChoices {
		return nil, err
	}
	return &answer{status: resp.StatusCode, fields: NewHeader(resp.Header).fields, body: body}, nil
}
