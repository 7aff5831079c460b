package apns

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
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

// owner says whose the value is that an answer speaks of.
type owner uint8

const (
	// topicOwner: the device's bundle, the message's topic, or the configuration's.
	topicOwner owner = iota + 1
	// tokenOwner is topicOwner for answers about token and topic together: where the topic is the configuration's, it may be
	// the token that is another app's.
	tokenOwner
)

// row is one line of docs/providers.md, "APNs".
type row struct {
	verdict senders.Verdict
	// owner takes the place of verdict.Of where the answer speaks of a value that may be several's.
	owner owner
}

const (
	ofDevice  = senders.OfDevice
	ofMessage = senders.OfMessage
	// ofTarget is a failure that may be one token's, or Apple's.
	ofTarget = senders.OfDevice | senders.OfService
	// ofToken is a refusal that may be one token's, or comes of the wrong environment or key.
	ofToken = senders.OfDevice | senders.OfCredential
)

var (
	drop  = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofDevice}
	wrong = senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofMessage}
	stop  = senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	again = senders.Verdict{Next: senders.Again}
	ill   = senders.Verdict{Next: senders.Later, Of: ofTarget}
	slow  = senders.Verdict{Next: senders.Later, Of: ofTarget, Slow: true}
)

// table is docs/providers.md, "APNs", in its order. 200 and 410, which say more than a word, are in Classify.
var table = map[string]row{
	// 400: the token is malformed or of the other environment.
	apns2.ReasonBadDeviceToken: {verdict: senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: ofToken}},
	// 400: the token is another app's, or the topic is wrong.
	apns2.ReasonDeviceTokenNotForTopic: {verdict: drop, owner: tokenOwner},
	// 400: topic and credential do not go together.
	apns2.ReasonTopicDisallowed: {verdict: drop, owner: topicOwner},
	apns2.ReasonBadTopic:        {verdict: drop, owner: topicOwner},
	apns2.ReasonMissingTopic:    {verdict: drop, owner: topicOwner},
	// 400: the request is built wrongly.
	apns2.ReasonBadCollapseID:     {verdict: wrong},
	apns2.ReasonBadExpirationDate: {verdict: wrong},
	apns2.ReasonBadMessageID:      {verdict: wrong},
	apns2.ReasonBadPriority:       {verdict: wrong},
	apns2.ReasonInvalidPushType:   {verdict: wrong},
	apns2.ReasonDuplicateHeaders:  {verdict: wrong},
	apns2.ReasonPayloadEmpty:      {verdict: wrong},
	// 400: the path ends early.
	apns2.ReasonMissingDeviceToken: {verdict: drop},
	// 400: the connection was idle; Send has opened another.
	apns2.ReasonIdleTimeout: {verdict: again},
	// 403: the provider token is older than an hour.
	apns2.ReasonExpiredProviderToken: {verdict: senders.Verdict{Next: senders.Refresh, Of: senders.OfCredential}},
	// 403: wrong key, team, key id or environment. It is never the device's end.
	apns2.ReasonInvalidProviderToken:      {verdict: stop},
	apns2.ReasonMissingProviderToken:      {verdict: stop},
	apns2.ReasonBadCertificate:            {verdict: stop},
	apns2.ReasonBadCertificateEnvironment: {verdict: stop},
	reasonBadEnvironmentKey:               {verdict: stop},
	// 403: the connection belongs to another key; Send has opened another.
	reasonUnrelatedKey: {verdict: again},
	// 403: the action is not allowed, to this one or at all.
	apns2.ReasonForbidden: {verdict: senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: ofToken}},
	// 404, 405: a wrong URL or method, so for every request.
	apns2.ReasonBadPath:          {verdict: stop},
	apns2.ReasonMethodNotAllowed: {verdict: stop},
	// 413: personalised text makes it one device's.
	apns2.ReasonPayloadTooLarge: {verdict: drop},
	// 429: our token changed too often; it stays, and the requests are good.
	apns2.ReasonTooManyProviderTokenUpdates: {verdict: ill},
	// 429: one device token had too many in a row; the others go on.
	apns2.ReasonTooManyRequests: {verdict: senders.Verdict{Next: senders.Later, Of: ofDevice}},
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
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}
	}
	now := time.Now()
	s := reason(a)
	p.heed(r, a, s.Reason)
	row, known := table[s.Reason]
	v := row.verdict
	switch {
	case s.Reason == apns2.ReasonUnregistered || s.Reason == apns2.ReasonExpiredToken:
		// 410: the end of the device, unless it registered again since. A time that has not come yet cannot be right.
		v = senders.Verdict{
			Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: ofDevice,
			InvalidAt: min(max(0, s.Timestamp), now.UnixMilli()),
		}
	case !known:
		v = byStatus(a.Status)
	case row.owner != 0:
		v = p.owned(r, row)
	}
	v.Code = s.Reason
	if v.Code == "" {
		v.Code = strconv.Itoa(a.Status)
	}
	v.After = exchange.RetryAfter(a.Header, now)
	return v
}

// owned is the verdict about a topic, by whose it is.
func (p *Provider) owned(r *senders.Request, row row) senders.Verdict {
	bundle := r.Delivery.GetTarget().GetApns().GetTopic()
	switch topic := r.Field(headerTopic); {
	case bundle != "" && strings.HasPrefix(topic, bundle):
		return drop
	case !strings.HasPrefix(topic, p.apps[r.Destination.App].topic):
		return wrong
	case row.owner == tokenOwner:
		v := drop
		v.Of = ofToken
		return v
	}
	return stop
}

// byStatus is for an answer without a reason that the table knows: a younger one, or a gateway's own page.
func byStatus(status int) senders.Verdict {
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return stop
	case status == http.StatusTooManyRequests:
		v := slow
		v.Limited = true
		return v
	case status == http.StatusServiceUnavailable:
		return slow
	case status >= 400 && status < 500:
		return drop
	default:
		return ill
	}
}
