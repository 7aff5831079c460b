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

const (
	// ofTarget is a failure that may be one subscription's, or the push service's.
	ofTarget = senders.OfDevice | senders.OfService
	// ofKey is a refusal of a subscription that was made with another key, or of our key.
	ofKey = senders.OfDevice | senders.OfCredential
	// ofAny is a refusal that may be the subscription's, the message's, or of all that we send there.
	ofAny = senders.OfDevice | senders.OfMessage | senders.OfCredential
)

var (
	drop    = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfDevice}
	gone    = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: senders.OfDevice}
	wrong   = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfMessage}
	stop    = senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	ill     = senders.Verdict{Next: senders.Later, Of: ofTarget}
	slow    = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true}
	limited = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true, Limited: true}
)

// mozillaRetryNow is the errno of a 503 that asks to be asked again at once.
const mozillaRetryNow = 202

// words are Apple's reasons, whatever their status (docs/providers.md, "Web Push").
var words = map[string]senders.Verdict{
	"BadJwtToken":            stop,
	"BadVapidPublicKey":      stop,
	"BadAuthorizationHeader": stop,
	"BadWebPushTopic":        wrong,
	"BadTtl":                 wrong,
	"BadUrgency":             wrong,
	// The subscription was made with another key, and will never take this one; or the key is wrong, for all of them.
	"VapidPkHashMismatch": {Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: ofKey},
}

// errnos are Mozilla's of a 400 about a header whose value is the message's: TTL, or Topic.
var errnos = map[int]senders.Verdict{111: wrong, 112: wrong, 113: wrong, 114: wrong}

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

// verdict is docs/providers.md, "Web Push", in its order.
func (p *Provider) verdict(r *senders.Request, status int, s said) senders.Verdict {
	if v, known := words[s.Reason]; known && status >= 400 && status < 500 {
		return v
	}
	switch {
	case status >= 300 && status < 400:
		return drop // never followed: it may lead anywhere
	case status == http.StatusBadRequest:
		if v, known := errnos[s.Errno]; known {
			return v
		}
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofAny}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return unauthorized(r, s.code(status))
	case status == http.StatusNotFound, status == http.StatusGone:
		return gone
	case status == http.StatusMethodNotAllowed:
		return stop
	case status == http.StatusNotAcceptable:
		return limited // Windows throttles with 406
	case status == http.StatusRequestEntityTooLarge:
		return drop // of this service: others take the same message
	case status == http.StatusTooManyRequests:
		return limited
	case status >= 500 && s.Errno == mozillaRetryNow:
		return senders.Verdict{Next: senders.Again}
	case status == http.StatusServiceUnavailable:
		return slow
	case status >= 500:
		return ill
	default:
		return drop
	}
}

// unauthorized is a 401 or 403: our VAPID header, or one subscription that was made with another key. The header is signed
// anew, so the delivery is asked about once more before it is its end.
func unauthorized(r *senders.Request, code string) senders.Verdict {
	if r.Delivery.GetLastCode() == code {
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofKey}
	}
	return senders.Verdict{Next: senders.Later, Of: ofKey}
}
