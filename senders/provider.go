package senders

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
)

// ErrNoToken says that a request was not made because its destination has no valid provider token at this time. The
// destination waits; the delivery counts no attempt.
var ErrNoToken = errors.New("no valid provider token")

// ErrTokenRefused is an ErrNoToken that only the operator can mend: the credential that the token is made of is refused.
var ErrTokenRefused = fmt.Errorf("%w: its credential is refused", ErrNoToken)

// ErrNoCredential says that the configuration of this process lacks the app's credential at a destination. Its deliveries
// wait: another process may have it, or this one, when it has been mended.
var ErrNoCredential = errors.New("this process has no credential for it")

// Provider is one platform's half of a lane: what a request looks like, who carries it, what the answer means. Package
// apns, fcm and webpush implement it. All methods are safe for concurrent use.
type Provider interface {
	// Platform names the lane.
	Platform() pb.Platform

	// Destination says what limits this delivery: a credential or an origin. It fails with a *Refusal when the target is not
	// one that may be asked. Where this process has no credential for it, it names it all the same, with ErrNoCredential.
	Destination(d *pb.Delivery) (Destination, error)

	// Encode fills r with the provider's request. It may have been another delivery's, whose result is in: Encode overwrites
	// what that left and reuses the capacity of its Fields, Body, Plain and Text. It leaves Timeout, Handler and Tag alone. It fails
	// with a *Refusal when the message cannot be sent to this device at all: too large, or not renderable. now decides the
	// TTL, which is what remains until the delivery expires.
	Encode(r *Request, d *pb.Delivery, m *message.Compiled, now time.Time) error

	// Send carries requests of one destination and class, and returns at once. Each ends by one result to its Handler, be it
	// before Send returns. It never waits for a provider token: without a valid one each ends with ErrNoToken. A request
	// may be sent again after its result, as it is. The slice is the caller's again when Send returns.
	Send(batch []*Request)

	// Classify reads a result (whose error is never ErrNoToken) while that is its handler's, and does what it asks of the
	// connection or the token. It is a table, docs/providers.md row by row, and looks at nothing but the answer and whose
	// values the request was made of: what others get is the lane's to weigh.
	Classify(r *Request, res *wire.Result) Verdict

	// Ceiling is the most requests that may be in flight to a destination, whatever the lane learns. At least 1.
	Ceiling(d Destination) int

	// Rate is the most requests a second that the provider takes from all instances together to a destination, or 0 when it
	// names no such number. Both classes' lanes keep to it together.
	Rate(d Destination) float64

	// Refresh says that the provider refused the destination's token, and returns at once. Run then renews it, once however
	// many requests were refused with it, and no more often than the provider allows. Send may fail with ErrNoToken
	// until it has; Belfry asks for a second request after that, and if it is refused too, stops the destination.
	Refresh(d Destination)

	// Run keeps what sending needs fresh, provider tokens above all, until ctx is done.
	Run(ctx context.Context) error
}

// Destination is what a provider limits: an APNs (team key, environment), an FCM project, a Web Push (app, origin).
type Destination struct {
	App  string
	Name string
}

// Clone is the destination in memory of its own. A delivery's may lie in its record.
func (d Destination) Clone() Destination {
	return Destination{App: strings.Clone(d.App), Name: strings.Clone(d.Name)}
}

// Request is a provider request before it is on the wire. Its Fields are without authorization, which Send adds.
type Request struct {
	wire.Request
	Destination Destination
	Delivery    *pb.Delivery
	// Origin is where Path is: scheme://host[:port].
	Origin string
	// Plain is what the device is to read, where that is not what goes on the wire: Web Push's Encode writes it, and Send
	// encrypts it into Body.
	Plain []byte
	// Text holds the strings of Path and Fields that are this request's alone: see payload.View.
	Text []byte
}

// Authorize sets the request's authorization as its last field, in place of an earlier attempt's.
func (r *Request) Authorize(value string, kind wire.Kind) {
	const name = "authorization"
	if n := len(r.Fields); n > 0 && r.Fields[n-1].Name == name {
		r.Fields = r.Fields[:n-1]
	}
	r.Fields = append(r.Fields, wire.Field{Name: name, Value: value, Kind: kind})
}

// Field is the value of the request's field of that name, in lower case, or "".
func (r *Request) Field(name string) string {
	for i := range r.Fields {
		if r.Fields[i].Name == name {
			return r.Fields[i].Value
		}
	}
	return ""
}

// Fail ends each request of a batch with err.
func Fail(batch []*Request, err error) {
	for _, r := range batch {
		r.Handler.Answered([]wire.Result{{Request: &r.Request, Err: err}})
	}
}
