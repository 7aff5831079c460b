package fcm

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

// Floors that FCM asks for where it gives no Retry-After (firebase.google.com/docs/cloud-messaging/scale-fcm).
const (
	afterFault   = 10 * time.Second
	afterQuota   = 60 * time.Second
	afterSubauth = 60 * time.Second
)

const (
	ofDevice  = senders.OfDevice
	ofMessage = senders.OfMessage
	// ofTarget is a failure that may be one token's, or Google's.
	ofTarget = senders.OfDevice | senders.OfService
	// ofToken is a refusal that may be one token's, or comes of the wrong project.
	ofToken = senders.OfDevice | senders.OfCredential
)

var (
	drop  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofDevice}
	gone  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: ofDevice}
	wrong = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofMessage}
	stop  = senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	slow  = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true}
	ill   = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true, After: afterFault}
	// quota is the project's or the device's.
	quota = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true, Limited: true, After: afterQuota}
)

// table is docs/providers.md, "FCM", by FcmError code, or by the status where there is none. 200, INVALID_ARGUMENT, NOT_FOUND
// and QUOTA_EXCEEDED take more than a word: Classify has them.
var table = map[string]senders.Verdict{
	// 401: the project's own APNs key or web push key is bad. A token does not say which of them it needs, so those that
	// meet it are put off one by one, and the project's Android devices, which need neither, go on.
	"THIRD_PARTY_AUTH_ERROR": {Next: senders.Later, Of: ofDevice, After: afterSubauth},
	// 401: the access token.
	"UNAUTHENTICATED": {Next: senders.Refresh, Of: senders.OfCredential},
	// 403: the token is of another project.
	"SENDER_ID_MISMATCH": {Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofToken},
	// 403: the service account lacks the role, or the API is off.
	"PERMISSION_DENIED": stop,
	// 404: gone, on Android also after 270 days unused.
	"UNREGISTERED": gone,
	// 500
	"INTERNAL": ill,
	// 503
	"UNAVAILABLE": slow,
	// FCM does not know itself: the token stays.
	"UNSPECIFIED_ERROR": {Next: senders.Later, Of: ofTarget, After: afterFault},
}

// said is an error's body (google.rpc.Status with FcmError, BadRequest and QuotaFailure in its details).
type said struct {
	Error struct {
		Status  string `json:"status"`
		Message string `json:"message"`
		Details []struct {
			ErrorCode       string `json:"errorCode"`
			FieldViolations []struct {
				Field string `json:"field"`
			} `json:"fieldViolations"`
			Violations []struct {
				Subject     string `json:"subject"`
				Description string `json:"description"`
			} `json:"violations"`
		} `json:"details"`
	} `json:"error"`
}

// reason reads an answer's body; what is none of Google's has no reason.
func reason(a *wire.Result) said {
	var s said
	if json.Unmarshal(a.Body, &s) != nil {
		return said{}
	}
	s.Error.Status = exchange.Word(s.Error.Status)
	return s
}

// fcmCode is FCM's own code, which tells a dead token from a wrong path under the same status.
func (s *said) fcmCode() string {
	for _, d := range s.Error.Details {
		if c := exchange.Word(d.ErrorCode); c != "" {
			return c
		}
	}
	return ""
}

// aboutToken tells whether an INVALID_ARGUMENT is about the token: it names no other field.
func (s *said) aboutToken() bool {
	violations := 0
	for _, d := range s.Error.Details {
		for _, v := range d.FieldViolations {
			violations++
			if v.Field != "message.token" && v.Field != "message.fid" {
				return false
			}
		}
	}
	return violations > 0 || s.fcmCode() == "INVALID_ARGUMENT" ||
		strings.Contains(s.Error.Message, "not a valid FCM registration token")
}

// aboutDevice tells whether the quota that was exceeded is one device's.
func (s *said) aboutDevice() bool {
	for _, d := range s.Error.Details {
		for _, v := range d.Violations {
			if text := strings.ToLower(v.Subject + " " + v.Description); strings.Contains(text, "device") || strings.Contains(text, "token:") {
				return true
			}
		}
	}
	return false
}

// Classify implements senders.Provider.
func (p *Provider) Classify(r *senders.Request, a *wire.Result) senders.Verdict {
	if a.Err != nil {
		v := exchange.Verdict(a)
		if v.Of&senders.OfService != 0 {
			v.Slow, v.After = true, afterFault
		}
		return v
	}
	if a.Status >= 200 && a.Status < 300 {
		p.received.add(r)
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	}
	s := reason(a)
	code := s.fcmCode()
	v := p.verdict(r, a.Status, code, &s)
	v.Code = cmp.Or(code, s.Error.Status, strconv.Itoa(a.Status))
	if after := exchange.RetryAfter(a.Header, time.Now()); after > 0 {
		v.After = after
	}
	return v
}

func (p *Provider) verdict(r *senders.Request, status int, code string, s *said) senders.Verdict {
	switch {
	case code == "UNREGISTERED" && status != http.StatusNotFound:
		return drop // a code in the wrong place ends no device
	case status == http.StatusNotFound && code != "UNREGISTERED":
		return stop // the project's path is wrong, for every request
	case code == "INVALID_ARGUMENT" || code == "" && status == http.StatusBadRequest:
		return p.invalidArgument(r, s)
	case code == "QUOTA_EXCEEDED" || status == http.StatusTooManyRequests:
		if s.aboutDevice() {
			return senders.Verdict{Next: senders.Later, Of: ofDevice, After: afterQuota}
		}
		return quota
	}
	if v, known := table[cmp.Or(code, s.Error.Status)]; known {
		return v
	}
	return byStatus(status)
}

// invalidArgument tells a wrong payload from a wrong token. Only a payload that FCM has taken for another device proves
// that it is the token.
func (p *Provider) invalidArgument(r *senders.Request, s *said) senders.Verdict {
	switch {
	case !s.aboutToken():
		return wrong
	case p.received.has(r):
		return gone
	default:
		v := drop
		v.Of |= ofMessage
		return v
	}
}

// byStatus is for an answer without a code that the table knows: a younger one, or a gateway's own page.
func byStatus(status int) senders.Verdict {
	switch {
	case status == http.StatusUnauthorized:
		return table["UNAUTHENTICATED"]
	case status == http.StatusForbidden:
		return stop
	case status == http.StatusServiceUnavailable:
		return slow
	case status >= 400 && status < 500:
		return drop
	default:
		return ill
	}
}
