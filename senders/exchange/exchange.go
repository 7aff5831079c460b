package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/belfry/belfry/failpoint"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// maxBody is how much of an answer is kept. The longest that any provider sends with a meaning is about 1 KiB.
const maxBody = 4 << 10

// Exchange is one request, made by a provider's library, and the answer as it came.
//
// The libraries lose what the classifier needs: apns2 gives up the status when a body is not JSON and never had
// Retry-After; firebase's client retries a 503 and any network error by itself, sleeping up to seven seconds, and hides
// what was said. So an Exchange rides in the request's context. The Client at the library's bottom keeps the truth in it
// and tells the library of a plain success, whatever happened: nothing to retry, nothing to sleep over, nothing to parse.
type Exchange struct {
	// Prepare changes the header that goes on the wire: authorization, for the most part.
	Prepare func(http.Header)
	// Body goes on the wire in the place of the library's own, when it is set.
	Body []byte
	// Class is the delivery's: urgent ones have connections of their own.
	Class pb.Class

	via    *http.Transport
	sent   atomic.Bool
	answer *senders.Answer
	err    error
}

type exchangeKey struct{}

// In is the context for the library's call. It also carries the note of whether the request reached the wire.
func (x *Exchange) In(ctx context.Context) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { x.sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { failpoint.Hit(failpoint.AfterWrite) },
	})
	return context.WithValue(ctx, exchangeKey{}, x)
}

// Result is the provider's answer, or a *Lost. refused is what the library's call returned: it tells only why there was no
// request at all, which makes a *senders.Refusal.
func (x *Exchange) Result(ctx context.Context, refused error) (*senders.Answer, error) {
	switch {
	case x.answer != nil:
		return x.answer, nil
	case x.err != nil:
		return nil, &Lost{Err: x.err, Sent: x.sent.Load()}
	case ctx.Err() != nil:
		return nil, &Lost{Err: ctx.Err()}
	default:
		// What follows the colon may quote the message.
		why, _, _ := strings.Cut(fmt.Sprint(refused), ":")
		return nil, &senders.Refusal{
			Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-request", Detail: "the library made no request of it: " + why,
		}
	}
}

// Client is the bottom of a library's HTTP client. It is safe for concurrent use.
//
// Each class has its own transport, and so its own connections: on one that a campaign has filled, an urgent request would
// wait for a stream, for the window, for the writer's lock and for all frames that the kernel has taken already.
type Client struct {
	dial         func() *http.Transport
	bulk, urgent atomic.Pointer[http.Transport]
}

// NewClient takes its connections from transports that dial makes, and from a new one after each Renew.
func NewClient(dial func() *http.Transport) *Client {
	c := &Client{dial: dial}
	c.bulk.Store(dial())
	c.urgent.Store(dial())
	return c
}

// of is the transport of a class.
func (c *Client) of(class pb.Class) *atomic.Pointer[http.Transport] {
	if class == pb.Class_CLASS_URGENT {
		return &c.urgent
	}
	return &c.bulk
}

// HTTP wraps the client for a library. No redirect is followed: it never sees one. No push service has any to make, and a
// subscription's endpoint is a stranger's word.
func (c *Client) HTTP() *http.Client { return &http.Client{Transport: c} }

// RoundTrip does the exchange that rides in the request's context.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*Exchange)
	if !ok {
		return nil, errors.New("the request carries no exchange")
	}
	out := req.Clone(req.Context())
	if x.Prepare != nil {
		x.Prepare(out.Header)
	}
	if x.Body != nil {
		out.Body = io.NopCloser(bytes.NewReader(x.Body))
		out.ContentLength = int64(len(x.Body))
		// Lets the transport send it again when a GOAWAY says that it was not processed.
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.Body)), nil }
	}
	x.via = c.of(x.Class).Load()
	failpoint.Hit(failpoint.BeforeWrite)
	resp, err := x.via.RoundTrip(out)
	if err == nil {
		x.answer, err = read(resp)
		failpoint.Hit(failpoint.Answered)
	}
	x.err = err
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: req,
	}, nil
}

// Renew has the next request open a new connection, once for all exchanges of the old one. APNs ties a connection to the
// key first used on it; what is in flight on the old one still ends there.
func (c *Client) Renew(x *Exchange) {
	if x.via != nil && c.of(x.Class).CompareAndSwap(x.via, c.dial()) {
		x.via.CloseIdleConnections()
	}
}

// Close closes connections that nothing is using.
func (c *Client) Close() {
	c.bulk.Load().CloseIdleConnections()
	c.urgent.Load().CloseIdleConnections()
}

// read takes the answer from a response. A success whose body breaks off is a success all the same; a failure whose body
// breaks off has not said what failed.
func read(resp *http.Response) (*senders.Answer, error) {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && resp.StatusCode >= http.StatusMultipleChoices {
		return nil, err
	}
	return &senders.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}
