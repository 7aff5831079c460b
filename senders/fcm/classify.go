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

// Floors that FCM asks for where it gives no Retry-After (provider-semantics 2.2).
const (
	afterFault   = 10 * time.Second
	afterQuota   = 60 * time.Second
	afterSubauth = 60 * time.Second
)

var (
	drop  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED}
	gone  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED}
	wrong = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Scope: senders.ScopeMessage}
	stop  = senders.Verdict{Next: senders.Stop, Scope: senders.ScopeDestination}
	slow  = senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination, Slow: true}
	// The floor of these is their delivery's alone: for one fault the project is slowed, and not held. Only FCM's own
	// Retry-After holds it.
	ill   = senders.Verdict{Next: senders.Later, Slow: true, After: afterFault}
	quota = senders.Verdict{Next: senders.Later, Slow: true, After: afterQuota}
)

// table is provider-semantics 2.2 by FcmError code, or by the status where there is none. 200, INVALID_ARGUMENT,
// SENDER_ID_MISMATCH, NOT_FOUND and QUOTA_EXCEEDED take more than a word: Classify has them.
var table = map[string]senders.Verdict{
	// 401: the project's own APNs key or web push key is bad. A token does not say which of them it needs, so those that
	// meet it are put off one by one, and the project's Android devices, which need neither, go on.
	"THIRD_PARTY_AUTH_ERROR": {Next: senders.Later, After: afterSubauth},
	// 401: the access token.
	"UNAUTHENTICATED": {Next: senders.Refresh, Scope: senders.ScopeDestination},
	// 403: the service account lacks the role, or the API is off.
	"PERMISSION_DENIED": stop,
	// 404: gone, on Android also after 270 days unused.
	"UNREGISTERED": gone,
	// 500
	"INTERNAL": ill,
	// 503
	"UNAVAILABLE": slow,
	// FCM does not know itself: the token stays.
	"UNSPECIFIED_ERROR": {Next: senders.Later, After: afterFault},
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
		if v.Next == senders.Later {
			v.Slow = v.Slow || v.Scope == senders.ScopeDestination
			v.Scope, v.After = senders.ScopeDevice, afterFault
		}
		return v
	}
	if a.Status >= 200 && a.Status < 300 {
		p.history.Success(r.Destination)
		p.received.add(r)
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	}
	s := reason(a)
	code := s.fcmCode()
	v := p.verdict(r, a.Status, code, &s)
	v.Code = cmp.Or(code, s.Error.Status, strconv.Itoa(a.Status))
	if after := exchange.RetryAfter(a.Header, time.Now()); after > 0 {
		v.After = after
		if v.Slow {
			v.Scope = senders.ScopeDestination
		}
	}
	return v
}

func (p *Provider) verdict(r *senders.Request, status int, code string, s *said) senders.Verdict {
	switch {
	case code == "UNREGISTERED" && status != http.StatusNotFound:
		return drop // a code in the wrong place ends no device
	case status == http.StatusNotFound && code != "UNREGISTERED":
		return stop // the project's path is wrong, for every request
	case code == "SENDER_ID_MISMATCH":
		if p.history.Suspect(r.Destination) == exchange.Burst {
			return stop // every token is of another project
		}
		return drop
	case code == "INVALID_ARGUMENT" || code == "" && status == http.StatusBadRequest:
		return p.invalidArgument(r, s)
	case code == "QUOTA_EXCEEDED" || status == http.StatusTooManyRequests:
		if s.aboutDevice() {
			return senders.Verdict{Next: senders.Later, After: afterQuota}
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
		return drop
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
