package webpush

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

var (
	drop = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED}
	gone = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED}
	stop = senders.Verdict{Next: senders.Stop, Scope: senders.ScopeDestination}
	slow = senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination, Slow: true}
	ill  = senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination}
)

// Words of push services that say more than their status (provider-semantics 2.3, "Mozilla autopush" and "Apple Web Push").
const (
	mozillaRetryNow    = 202
	mozillaBridgeFirst = 900
	mozillaBridgeLast  = 903
	appleBadToken      = "BadJwtToken"
	appleBadPublicKey  = "BadVapidPublicKey"
)

// said is the body of an answer that is no success: Apple's has a reason, Mozilla's an errno.
type said struct {
	Reason string `json:"reason"`
	Errno  int    `json:"errno"`
}

func reason(a *wire.Result) said {
	var s said
	if json.Unmarshal(a.Body, &s) != nil {
		return said{}
	}
	s.Reason = exchange.Word(s.Reason)
	return s
}

// code is the most telling word of the answer.
func (s said) code(status int) string {
	switch {
	case s.Reason != "":
		return s.Reason
	case s.Errno > 0 && s.Errno < 1000:
		return strconv.Itoa(status) + "-" + strconv.Itoa(s.Errno)
	default:
		return strconv.Itoa(status)
	}
}

// Classify implements senders.Provider.
func (p *Provider) Classify(r *senders.Request, a *wire.Result) senders.Verdict {
	switch {
	case errors.Is(a.Err, errPrivate):
		v := drop // a name that leads into our own network is the endpoint's fault, and no other's
		v.Code = "private-address"
		return v
	case a.Err != nil:
		return exchange.Verdict(a)
	case a.Status >= 200 && a.Status < 300:
		p.history.Success(r.Destination)
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		p.apps[r.Destination.App].vapid.forget(r.Origin)
	}
	s := reason(a)
	v := p.verdict(r, a.Status, s)
	v.Code = s.code(a.Status)
	v.After = exchange.RetryAfter(a.Header, time.Now())
	return v
}

// verdict is provider-semantics 2.3, in its order.
func (p *Provider) verdict(r *senders.Request, status int, s said) senders.Verdict {
	switch {
	case status >= 300 && status < 400:
		return drop // never followed: it may lead anywhere
	case status == http.StatusBadRequest:
		return p.malformed(r.Destination, s)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return p.unauthorized(r, s.code(status))
	case status == http.StatusNotFound, status == http.StatusGone:
		return gone
	case status == http.StatusNotAcceptable:
		return slow // Windows throttles with 406
	case status == http.StatusRequestEntityTooLarge:
		return drop // of this service: others take the same message
	case status == http.StatusTooManyRequests:
		return slow
	case status >= 500 && s.Errno == mozillaRetryNow:
		return senders.Verdict{Next: senders.Again}
	case status >= 500 && s.Errno >= mozillaBridgeFirst && s.Errno <= mozillaBridgeLast:
		return senders.Verdict{Next: senders.Later} // the bridge behind Mozilla, for this device
	case status == http.StatusServiceUnavailable:
		return slow
	case status >= 500:
		return ill
	default:
		return drop
	}
}

// malformed is a 400: this request, or our whole format at that origin when all meet it.
func (p *Provider) malformed(d senders.Destination, s said) senders.Verdict {
	if s.Reason == appleBadToken || s.Reason == appleBadPublicKey || p.history.Suspect(d) == exchange.Burst {
		return stop
	}
	return drop
}

// unauthorized is a 401 or 403: our VAPID header, or one subscription that was made with another key. The answer is the
// same, so the first time the delivery only waits. When it meets that again while others go through, it is the
// subscription; when none does, it is the header.
func (p *Provider) unauthorized(r *senders.Request, code string) senders.Verdict {
	if code == appleBadToken || code == appleBadPublicKey {
		return stop
	}
	standing := p.history.Suspect(r.Destination)
	again := r.Delivery.GetLastCode() == code
	switch {
	case standing == exchange.Burst:
		return stop
	case standing == exchange.Proven && again:
		return drop
	default:
		return senders.Verdict{Next: senders.Later}
	}
}
