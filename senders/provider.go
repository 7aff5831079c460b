package senders

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// ErrNoToken says that a request was not made because its destination has no valid provider token at this time. The
// destination waits; the delivery counts no attempt.
var ErrNoToken = errors.New("no valid provider token")

// Provider is one platform's half of a lane: what a request looks like, who carries it, what the answer means. Package
// apns, fcm and webpush implement it. All methods are safe for concurrent use.
type Provider interface {
	// Platform names the lane.
	Platform() pb.Platform

	// Destination says what limits this delivery: a credential or an origin. It fails with a *Refusal when the app has no
	// credential for it or the target is not one that may be asked.
	Destination(d *pb.Delivery) (Destination, error)

	// Encode makes the provider's request. It fails with a *Refusal when the message cannot be sent to this device at
	// all: too large, or not renderable. now decides the TTL, which is what remains until the delivery expires.
	Encode(d *pb.Delivery, m *message.Compiled, now time.Time) (*Request, error)

	// Send carries a request and returns the provider's answer, or an error when there is none. It never waits for a
	// provider token: without a valid one it fails at once with ErrNoToken.
	Send(ctx context.Context, r *Request) (*Answer, error)

	// Classify reads an answer, or the error in its place (never ErrNoToken or a *Refusal). It is a table: provider-semantics, row by
	// row.
	Classify(r *Request, a *Answer, err error) Verdict

	// Ceiling is the most requests that may be in flight to a destination, whatever the lane learns. At least 1.
	Ceiling(d Destination) int

	// Rate is the most requests a second that the provider takes from all instances together to a destination, or 0 when it
	// names no such number. Bulk lanes keep to it.
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

// Request is a provider request before it is on the wire. Header names are canonical; the transport adds authorization.
type Request struct {
	Destination Destination
	Delivery    *pb.Delivery
	URL         string
	Header      http.Header
	// Body is what the device is to read. For Web Push it is the plaintext: the transport encrypts.
	Body []byte
}

// Answer is a provider's response. Body is cut at 4 KiB.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Scope is how far an answer reaches beyond its own delivery.
type Scope uint8

const (
	// ScopeDevice concerns this target only.
	ScopeDevice Scope = iota
	// ScopeMessage says that the message is wrong, and so for every device it goes to.
	ScopeMessage
	// ScopeDestination concerns the credential's or origin's whole traffic.
	ScopeDestination
)

// Next is what becomes of the delivery and, by scope, of its destination.
type Next uint8

const (
	// End finishes the delivery with Verdict.Outcome.
	End Next = iota
	// Again sends it once more at once: the provider certainly did not process it.
	Again
	// Later puts it off, no sooner than Verdict.After, and counts an attempt.
	Later
	// Refresh renews the destination's provider token and sends it again.
	Refresh
	// Stop holds the destination, with its messages, until its credential is mended.
	Stop
)

// Verdict is what an answer means.
type Verdict struct {
	Next    Next
	Outcome pb.Outcome
	Scope   Scope
	// Code is the provider's reason or status, or Belfry's own word. It names the row of the table.
	Code string
	// After is the provider's Retry-After, a floor that no backoff or jitter goes below. 0: none given.
	After time.Duration
	// Slow asks to lower the destination's rate.
	Slow bool
	// Unknown says that the provider may have accepted the request all the same.
	Unknown bool
	// InvalidAt is when the provider learned that the target is gone, Unix ms. 0: it did not say.
	InvalidAt int64
}

// Refusal is a delivery that must not be sent: it ends with the outcome and code, without a request.
type Refusal struct {
	Outcome pb.Outcome
	Code    string
	Detail  string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }
