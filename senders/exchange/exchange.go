package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/belfry/belfry/failpoint"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
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

	class pb.Class
	via   *http.Transport
	sent  atomic.Bool
	// answer is nil as long as there is none.
	answer *http.Response
	body   []byte
	err    error
}

type exchangeKey struct{}

// in is the context for the library's call. It also carries the note of whether the request reached the wire.
func (x *Exchange) in(ctx context.Context) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { x.sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { failpoint.Hit(failpoint.AfterWrite) },
	})
	return context.WithValue(ctx, exchangeKey{}, x)
}

// result is the provider's answer, or why there is none. refused is what the library's call returned: it tells only why
// there was no request at all, which makes a *senders.Refusal.
func (x *Exchange) result(ctx context.Context, refused error) wire.Result {
	res := wire.Result{Sent: x.sent.Load()}
	switch {
	case x.answer != nil:
		res.Status, res.Header, res.Body = x.answer.StatusCode, wire.NewHeader(x.answer.Header), x.body
	case x.err != nil:
		res.Err = x.err
	case ctx.Err() != nil:
		res.Err = ctx.Err()
	default:
		// What follows the colon may quote the message.
		why, _, _ := strings.Cut(fmt.Sprint(refused), ":")
		res.Err = &senders.Refusal{
			Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-request", Detail: "the library made no request of it: " + why,
		}
	}
	return res
}

// Client is the bottom of a library's HTTP client, and carries requests through the library. It is safe for concurrent use.
//
// Each class has its own transport, and so its own connections: on one that a campaign has filled, an urgent request would
// wait for a stream, for the window, for the writer's lock and for all frames that the kernel has taken already.
type Client struct {
	dial         func() *http.Transport
	stale        func(*wire.Result) bool
	bulk, urgent atomic.Pointer[http.Transport]

	// life ends with Close.
	life context.Context
	stop context.CancelFunc

	mu  sync.Mutex // guards the step from open to closed
	out sync.WaitGroup
}

// NewClient takes its connections from transports that dial makes, and from a new one after each answer that is
// stale: one that says that its connection should take no more requests.
func NewClient(dial func() *http.Transport, stale func(*wire.Result) bool) *Client {
	c := &Client{dial: dial, stale: stale}
	c.life, c.stop = context.WithCancel(context.Background())
	c.bulk.Store(dial())
	c.urgent.Store(dial())
	return c
}

// Carry sends each request through post, a library's blocking call, in a goroutine of its own. post is called with an
// exchange to prepare, whose context must reach the library, and returns the library's error.
func (c *Client) Carry(batch []*senders.Request, post func(context.Context, *Exchange, *senders.Request) error) {
	c.mu.Lock()
	closed := c.life.Err() != nil
	if !closed {
		c.out.Add(len(batch))
	}
	c.mu.Unlock()
	if closed {
		senders.Fail(batch, wire.ErrClosed)
		return
	}
	for _, r := range batch {
		go func() {
			defer c.out.Done()
			res := c.carry(r, post)
			res.Request = &r.Request
			r.Handler.Answered([]wire.Result{res})
		}()
	}
}

func (c *Client) carry(r *senders.Request, post func(context.Context, *Exchange, *senders.Request) error) wire.Result {
	ctx, cancel := context.WithCancel(c.life)
	if r.Timeout > 0 {
		ctx, cancel = context.WithTimeout(c.life, r.Timeout)
	}
	defer cancel()
	x := &Exchange{class: r.Delivery.GetClass()}
	refused := post(x.in(ctx), x, own(r))
	res := x.result(ctx, refused)
	if res.Err != nil && c.life.Err() != nil {
		res.Err = wire.ErrClosed
	}
	if c.stale(&res) {
		c.retire(x)
	}
	return res
}

// own copies what the library is to send. net/http may still read a request after it has given it up, when by our contract
// its memory is another request's already.
func own(r *senders.Request) *senders.Request {
	c := *r
	c.Path, c.Body, c.Plain = strings.Clone(r.Path), bytes.Clone(r.Body), bytes.Clone(r.Plain)
	c.Fields = slices.Clone(r.Fields)
	for i := range c.Fields {
		c.Fields[i].Value = strings.Clone(c.Fields[i].Value)
	}
	return &c
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
	x.via = c.of(x.class).Load()
	failpoint.Hit(failpoint.BeforeWrite)
	resp, err := x.via.RoundTrip(out)
	if err == nil {
		err = x.read(resp)
		failpoint.Hit(failpoint.Answered)
	}
	x.err = err
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: req,
	}, nil
}

// retire has the next request open a new connection, once for all requests of the old one. What is in flight on that still
// ends there.
func (c *Client) retire(x *Exchange) {
	if x.via != nil && c.of(x.class).CompareAndSwap(x.via, c.dial()) {
		x.via.CloseIdleConnections()
	}
}

// Never is for platforms where no answer is about its connection.
func Never(*wire.Result) bool { return false }

// Close ends what is in flight with wire.ErrClosed, waits for it, and closes the connections.
func (c *Client) Close() {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.out.Wait()
	c.bulk.Load().CloseIdleConnections()
	c.urgent.Load().CloseIdleConnections()
}

// read takes the answer from a response. A success whose body breaks off is a success all the same; a failure whose body
// breaks off has not said what failed.
func (x *Exchange) read(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && resp.StatusCode >= http.StatusMultipleChoices {
		return err
	}
	x.answer, x.body = resp, body
	return nil
}
