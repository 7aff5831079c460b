package apns

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/sideshow/apns2"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

// Reasons younger than apns2's list.
const (
	reasonBadEnvironmentKey = "BadEnvironmentKeyIdInToken"
	reasonUnrelatedKey      = "UnrelatedKeyIdInToken"
)

// row is one line of provider-semantics 2.1.
type row struct {
	verdict senders.Verdict
	// suspect rows are about the device while others go through, and stop the destination when none does.
	suspect bool
	// gone rows are the end of the device, where the destination has proved that it is set up right.
	gone bool
}

var (
	drop  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED}
	stop  = senders.Verdict{Next: senders.Stop, Scope: senders.ScopeDestination}
	again = senders.Verdict{Next: senders.Again}
	// wrong is a request built wrongly, the same for all of a campaign.
	wrong = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Scope: senders.ScopeMessage}
	later = senders.Verdict{Next: senders.Later}
	// ill is a fault of the service, slow one that asks for less.
	ill  = senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination}
	slow = senders.Verdict{Next: senders.Later, Scope: senders.ScopeDestination, Slow: true}
)

// table is provider-semantics 2.1 in its order. 200 and 410, which say more than a word, are in Classify.
var table = map[string]row{
	// 400: the token is malformed or of the other environment.
	apns2.ReasonBadDeviceToken: {verdict: drop, suspect: true, gone: true},
	// 400: the token is another app's; in a row, apns-topic is wrong.
	apns2.ReasonDeviceTokenNotForTopic: {verdict: drop, suspect: true},
	// 400: topic and credential do not go together.
	apns2.ReasonTopicDisallowed: {verdict: stop},
	apns2.ReasonBadTopic:        {verdict: stop},
	apns2.ReasonMissingTopic:    {verdict: stop},
	// 400: the request is built wrongly.
	apns2.ReasonBadCollapseID:      {verdict: wrong},
	apns2.ReasonBadExpirationDate:  {verdict: wrong},
	apns2.ReasonBadMessageID:       {verdict: wrong},
	apns2.ReasonBadPriority:        {verdict: wrong},
	apns2.ReasonInvalidPushType:    {verdict: wrong},
	apns2.ReasonDuplicateHeaders:   {verdict: wrong},
	apns2.ReasonPayloadEmpty:       {verdict: wrong},
	apns2.ReasonMissingDeviceToken: {verdict: wrong},
	// 400: the connection was idle; Send has opened another.
	apns2.ReasonIdleTimeout: {verdict: again},
	// 403: the provider token is older than an hour.
	apns2.ReasonExpiredProviderToken: {verdict: senders.Verdict{Next: senders.Refresh, Scope: senders.ScopeDestination}},
	// 403: wrong key, team, key id or environment. It is never the device's end.
	apns2.ReasonInvalidProviderToken:      {verdict: stop},
	apns2.ReasonMissingProviderToken:      {verdict: stop},
	apns2.ReasonBadCertificate:            {verdict: stop},
	apns2.ReasonBadCertificateEnvironment: {verdict: stop},
	reasonBadEnvironmentKey:               {verdict: stop},
	// 403: the connection belongs to another key; Send has opened another.
	reasonUnrelatedKey: {verdict: again},
	// 403: the action is not allowed.
	apns2.ReasonForbidden: {verdict: drop, suspect: true},
	// 404, 405: a wrong URL or method, so for every request.
	apns2.ReasonBadPath:          {verdict: stop},
	apns2.ReasonMethodNotAllowed: {verdict: stop},
	// 413: personalised text makes it one device's.
	apns2.ReasonPayloadTooLarge: {verdict: drop},
	// 429: our token changed too often; it stays, and the requests are good.
	apns2.ReasonTooManyProviderTokenUpdates: {verdict: ill},
	// 429: one device token had too many in a row; the others go on.
	apns2.ReasonTooManyRequests: {verdict: later},
	// 500
	apns2.ReasonInternalServerError: {verdict: ill},
	// 503
	apns2.ReasonServiceUnavailable: {verdict: slow},
	// 503: that server is going down; Send has opened a connection to another.
	apns2.ReasonShutdown: {verdict: again},
}

// said is the body of an answer that is not 200.
type said struct {
	Reason string `json:"reason"`
	// Timestamp is when APNs last confirmed the token invalid, Unix ms. It comes with 410.
	Timestamp int64 `json:"timestamp"`
}

// reason reads an answer's body; what is none of Apple's has no reason.
func reason(a *wire.Result) said {
	var s said
	if a.Status == http.StatusOK || json.Unmarshal(a.Body, &s) != nil {
		return said{}
	}
	s.Reason = exchange.Word(s.Reason)
	return s
}

// Classify implements senders.Provider.
func (p *Provider) Classify(r *senders.Request, a *wire.Result) senders.Verdict {
	if a.Err != nil {
		return exchange.Verdict(a)
	}
	if a.Status == http.StatusOK {
		p.history.Success(r.Destination)
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	}
	now := time.Now()
	s := reason(a)
	p.heed(r, a, s.Reason)
	row, known := table[s.Reason]
	switch {
	case s.Reason == apns2.ReasonUnregistered || s.Reason == apns2.ReasonExpiredToken:
		// 410: the end of the device, unless it registered again since. A time that has not come yet cannot be right.
		return senders.Verdict{
			Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Code: s.Reason,
			InvalidAt: min(max(0, s.Timestamp), now.UnixMilli()),
		}
	case !known:
		row.verdict = byStatus(a.Status)
	}
	v := row.verdict
	if row.suspect {
		v = p.suspect(r.Destination, row)
	}
	v.Code = s.Reason
	if v.Code == "" {
		v.Code = strconv.Itoa(a.Status)
	}
	v.After = exchange.RetryAfter(a.Header, now)
	return v
}

// suspect decides between the device and the destination by what else the destination says.
func (p *Provider) suspect(d senders.Destination, row row) senders.Verdict {
	v := row.verdict
	switch standing := p.history.Suspect(d); {
	case standing == exchange.Burst:
		return stop
	case standing == exchange.Proven && row.gone:
		v.Outcome = pb.Outcome_OUTCOME_UNREGISTERED
	}
	return v
}

// byStatus is for an answer without a reason that the table knows: a younger one, or a gateway's own page.
func byStatus(status int) senders.Verdict {
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return stop
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return slow
	case status >= 400 && status < 500:
		return drop
	default:
		return ill
	}
}
