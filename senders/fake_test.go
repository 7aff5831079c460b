package senders

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/belfry/belfry/message"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
)

// fakeProvider answers by a function, and reads its own answers by a small table. A delivery's destination is its app and
// its FCM token's first letter.
type fakeProvider struct {
	platform pb.Platform
	answer   func(ctx context.Context, r *Request) (*wire.Result, error)
	ceiling  int
	rate     float64

	mu        sync.Mutex
	sent      []*Request
	refreshed int
	out       sync.WaitGroup
	ctx       context.Context
}

func (f *fakeProvider) Platform() pb.Platform { return f.platform }

func (f *fakeProvider) Ceiling(Destination) int { return max(f.ceiling, 1) }

func (f *fakeProvider) Rate(Destination) float64 { return f.rate }

func (f *fakeProvider) Destination(d *pb.Delivery) (Destination, error) {
	if d.App == "unknown-app" {
		return Destination{}, &Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-target"}
	}
	return Destination{App: d.App, Name: d.Target.GetFcm().GetToken()[:1]}, nil
}

func (f *fakeProvider) Encode(r *Request, d *pb.Delivery, m *message.Compiled, _ time.Time) error {
	r.Delivery, r.Body = d, nil
	if m != nil {
		r.Body = []byte(m.Content(d.Locale, d.Variables).Title)
	}
	r.Destination, _ = f.Destination(d)
	return nil
}

// life ends with the provider's, where it has one.
func (f *fakeProvider) life() context.Context {
	if f.ctx == nil {
		return context.Background()
	}
	return f.ctx
}

// Send asks answer in a goroutine a request, until its deadline or the provider's end.
func (f *fakeProvider) Send(batch []*Request) {
	for _, r := range batch {
		f.mu.Lock()
		f.sent = append(f.sent, &Request{Delivery: proto.CloneOf(r.Delivery), Destination: r.Destination, Request: wire.Request{Body: bytes.Clone(r.Body)}})
		f.mu.Unlock()
		f.out.Go(func() {
			ctx, cancel := context.WithTimeout(f.life(), r.Timeout)
			defer cancel()
			res, err := f.answer(ctx, r)
			if err != nil {
				res = &wire.Result{Err: err, Sent: true}
			}
			res.Request = &r.Request
			r.Handler.Answered([]wire.Result{*res})
		})
	}
}

func (f *fakeProvider) Refresh(Destination) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refreshed++
}

func (f *fakeProvider) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// requests is what has been asked so far.
func (f *fakeProvider) requests() []*Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Request(nil), f.sent...)
}

func (f *fakeProvider) Classify(_ *Request, a *wire.Result) Verdict {
	if a.Err != nil {
		return Verdict{Next: Later, Of: OfDevice | OfService, Code: "timeout", Slow: true, Unknown: true}
	}
	code := strconv.Itoa(a.Status)
	seconds, _ := strconv.Atoi(a.Header.Get("retry-after"))
	after := time.Duration(seconds) * time.Second
	switch a.Status {
	case 200:
		return Verdict{Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	case 401:
		return Verdict{Next: Refresh, Of: OfCredential, Code: code}
	case 403:
		return Verdict{Next: Stop, Of: OfCredential, Code: code}
	case 409:
		return Verdict{Outcome: pb.Outcome_OUTCOME_REJECTED, Of: OfDevice | OfCredential, Code: code}
	case 410:
		return Verdict{Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: OfDevice, Code: code, InvalidAt: 77}
	case 421:
		return Verdict{Next: Again, Code: code}
	case 429:
		return Verdict{Next: Later, Of: OfDevice | OfService, Slow: true, Limited: true, Code: code, After: after}
	case 503:
		return Verdict{Next: Later, Of: OfDevice | OfService, Slow: true, Code: code, After: after}
	case 504:
		return Verdict{Next: Later, Of: OfService, Code: code, After: after}
	case 500:
		return Verdict{Next: Later, Of: OfDevice, Code: code, After: after}
	}
	return Verdict{Outcome: pb.Outcome_OUTCOME_REJECTED, Of: OfMessage, Code: code}
}

func status(n int) (*wire.Result, error) { return &wire.Result{Status: n}, nil }

func retryAfter(n, seconds int) (*wire.Result, error) {
	return &wire.Result{Status: n, Header: wire.NewHeader(http.Header{"Retry-After": {strconv.Itoa(seconds)}})}, nil
}
