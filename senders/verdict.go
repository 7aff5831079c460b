package senders

import (
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Suspects are those whose value or doing an answer may speak of. Where there are several the answer does not tell which of
// them it is; what others get at the same time does (docs/providers.md, destination.learn). An answer without any says
// nothing but that there was none.
type Suspects uint8

const (
	// OfDevice is this target, and no other.
	OfDevice Suspects = 1 << iota
	// OfMessage is what the message says, to every device that it goes to.
	OfMessage
	// OfCredential is the app's credential at the destination, or what its configuration says there.
	OfCredential
	// OfService is the provider, or the way to it.
	OfService
)

// Next is what becomes of the delivery.
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
	// Stop keeps it, and holds the destination until its credential is mended: the answer can be about nothing else.
	Stop
)

// Verdict is what an answer means.
type Verdict struct {
	Next    Next
	Outcome pb.Outcome
	Of      Suspects
	// Code is the provider's reason or status, or Belfry's own word. It names the row of the table.
	Code string
	// After is the provider's Retry-After, a floor that no backoff or jitter goes below. It binds this delivery. 0: none given.
	After time.Duration
	// Slow asks for less at a time, Limited for less a minute: one target has been asked too often, or the destination.
	Slow, Limited bool
	// Unknown says that the provider may have accepted the request all the same.
	Unknown bool
	// InvalidAt is when the provider learned that the target is gone, Unix ms. 0: it did not say.
	InvalidAt int64
}

// general says that what was said may be of the destination, and not of this target or message.
func (v Verdict) general() bool { return v.Of&(OfService|OfCredential) != 0 }

// shared says that the failure may be one that others at the destination have, too, and is tried again.
func (v Verdict) shared() bool { return v.Next == Later && v.general() }

// Refusal is a delivery that must not be sent: it ends with the outcome and code, without a request.
type Refusal struct {
	Outcome pb.Outcome
	Code    string
	Detail  string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }
