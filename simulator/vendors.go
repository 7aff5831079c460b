package simulator

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// vendor is how a push service differs from the others.
type vendor struct {
	svc            Service
	prefix, suffix string // of an endpoint's path and query, before the token and after it
	token          tokenForm
	maxTTL         int64 // s; 0: longer ones are taken and cut
	zeroTTL        bool  // TTL 0, "now or never", is taken
}

// tokenForm is how a service writes a subscription into its endpoints.
type tokenForm struct {
	write func(*sealer, target) string
	read  func(*sealer, string) (target, bool)
}

var (
	plain = tokenForm{(*sealer).subscription, (*sealer).openSubscription}
	// Chrome's is FCM's registration token, of which the colon is a part.
	registration = tokenForm{(*sealer).fcmToken, (*sealer).openFCM}
	// Windows' is base64 with its +, / and = escaped, in small letters: it is another's when it is escaped otherwise.
	escaped = tokenForm{(*sealer).channel, (*sealer).openChannel}
)

var vendors = map[Service]*vendor{
	Chrome:  {svc: Chrome, prefix: "/fcm/send/", token: registration, maxTTL: 28 * 24 * 3600, zeroTTL: true},
	Mozilla: {svc: Mozilla, prefix: "/wpush/v2/gAAAAAB", token: plain, zeroTTL: true},
	Apple:   {svc: Apple, prefix: "/Q", token: plain, maxTTL: 30 * 24 * 3600, zeroTTL: true},
	Windows: {svc: Windows, prefix: "/w/?token=", token: escaped, maxTTL: 28 * 24 * 3600},
	Ntfy:    {svc: Ntfy, prefix: "/up", suffix: "?up=1", token: plain},
}

// endpoint is a subscription's path and query.
func (v *vendor) endpoint(w *world, t target) string {
	return v.prefix + v.token.write(w.sealer, t) + v.suffix
}

// open reads the subscription from a path and query.
func (v *vendor) open(w *world, path string) (target, bool) {
	token, ok := strings.CutPrefix(path, v.prefix)
	if !ok {
		return target{}, false
	}
	if token, ok = strings.CutSuffix(token, v.suffix); !ok {
		return target{}, false
	}
	t, ok := v.token.read(w.sealer, token)
	return t, ok && t.service == v.svc
}

// problem is what can be wrong with a push, in each vendor's terms.
type problem struct {
	statuses [5]int // Chrome, Mozilla, Apple, Windows, Ntfy
	errno    int    // Mozilla's (autopush, autoendpoint/src/error.rs); ntfy's code if statuses[4] says so
	apple    string // Apple's reason
	text     string // Chrome's body
}

func (p *problem) status(svc Service) int { return p.statuses[svc-Chrome] }

var (
	wrongMethod    = &problem{[5]int{405, 405, 405, 405, 404}, 0, "MethodNotAllowed", "method not allowed"}
	noSubscription = &problem{[5]int{404, 404, 404, 404, 507}, 102, "BadPath", "invalid push subscription endpoint"}
	gone           = &problem{[5]int{410, 410, 410, 410, 507}, 106, "Unregistered", "push subscription has unsubscribed or expired."}
	noVAPID        = &problem{[5]int{401, 401, 403, 401, 401}, 109, "BadJwtToken", "authorization header must be specified."}
	badScheme      = &problem{[5]int{403, 401, 403, 401, 403}, 109, "BadAuthorizationHeader", "invalid authorization header"}
	badKey         = &problem{[5]int{403, 401, 403, 401, 403}, 109, "BadVapidPublicKey", "invalid public key"}
	badVAPID       = &problem{[5]int{403, 401, 403, 401, 403}, 109, "BadJwtToken", "invalid JWT provided"}
	otherVAPID     = &problem{
		[5]int{403, 401, 400, 403, 403},
		109, "VapidPkHashMismatch",
		"the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.",
	}
	noTTL = &problem{[5]int{400, 400, 400, 400, 400}, 111, "BadTtl", "missing TTL header"}
	// Mozilla's page has 112 for this, and its code 114.
	badTTL      = &problem{[5]int{400, 400, 400, 400, 400}, 114, "BadTtl", "TTL out of range"}
	badUrgency  = &problem{[5]int{400, 400, 400, 400, 400}, 110, "BadUrgency", "invalid Urgency header"}
	badTopic    = &problem{[5]int{400, 400, 400, 400, 400}, 113, "BadWebPushTopic", "invalid Topic header"}
	badEncoding = &problem{[5]int{400, 400, 400, 400, 400}, 110, "BadWebPushRequest", "invalid encryption"}
	tooLarge    = &problem{[5]int{413, 413, 413, 413, 413}, 104, "PayloadTooLarge", "payload too large"}
	// Windows throttles with 406 (MicrosoftDocs/windows-dev-docs#4166).
	throttled  = &problem{[5]int{429, 429, 429, 406, 429}, 201, "TooManyRequests", "too many requests"}
	failed     = &problem{[5]int{500, 500, 500, 500, 500}, 999, "InternalServerError", "internal error"}
	bridge     = &problem{[5]int{502, 502, 502, 502, 502}, 902, "", "bad gateway"}
	overloaded = &problem{[5]int{503, 503, 503, 503, 503}, 201, "ServiceUnavailable", "service unavailable"}

	// problems in the order in which a fault's status is looked up: of those with one status, its usual one is first.
	problems = []*problem{
		badVAPID, noSubscription, gone, badTTL, tooLarge, throttled, failed, bridge, overloaded,
		wrongMethod, noVAPID, badScheme, badKey, otherVAPID, noTTL, badUrgency, badTopic, badEncoding,
	}
)

// usual is the problem that a vendor's status most often means, or else another's, with that status.
func (v *vendor) usual(status int) problem {
	for _, p := range problems {
		if p.status(v.svc) == status {
			return *p
		}
	}
	for _, p := range problems {
		if p.statuses[0] == status {
			return *p
		}
	}
	return problem{text: "A fault of the simulator."}
}

// ntfyErrors are ntfy's codes and words by status (ntfy, server/errors.go).
var ntfyErrors = map[int]struct {
	code int
	text string
}{
	403: {40301, "forbidden"}, 404: {40401, "page not found"}, 413: {41301, "attachment too large, or bandwidth limit reached"},
	429: {42901, "limit reached: too many requests"}, 500: {50001, "internal server error"},
	507: {50701, "cannot publish to UnifiedPush topic without previously active subscriber"},
}

// problem words what is wrong as the vendor does. word is in the place of the vendor's usual one, if it is not empty;
// detail is the simulator's own, for whoever debugs a sender.
func (v *vendor) problem(p *problem, word, detail string) Answer {
	a := Answer{Status: p.status(v.svc)}
	if detail != "" {
		a.Fields = append(a.Fields, Field{"X-Simulator-Detail", detail})
	}
	kind := "application/json"
	switch v.svc {
	case Mozilla:
		errno := cmp.Or(word, strconv.Itoa(p.errno))
		a.Body = fmt.Appendf(nil, `{"code":%d,"errno":%s,"error":%s,"message":%s,"more_info":"http://autopush.readthedocs.io/en/latest/http.html#error-codes"}`,
			a.Status, errno, strconv.Quote(http.StatusText(a.Status)), strconv.Quote(p.text))
	case Apple:
		a.Body = fmt.Appendf(nil, `{"reason":%s}`, strconv.Quote(cmp.Or(word, p.apple)))
	case Windows:
		said := "dropped"
		if p.statuses == throttled.statuses || a.Status == http.StatusTooManyRequests {
			said = "appthrottled"
		}
		said = cmp.Or(word, said)
		a.Fields = append(a.Fields, Field{"X-Wns-Status", said}, Field{"X-Wns-Notificationstatus", said}, Field{"X-Wns-Error-Description", p.text})
		return a
	case Ntfy:
		e := ntfyErrors[a.Status]
		a.Body = fmt.Appendf(nil, `{"code":%s,"http":%d,"error":%s}`+"\n",
			cmp.Or(word, strconv.Itoa(cmp.Or(e.code, a.Status*100))), a.Status, strconv.Quote(cmp.Or(e.text, p.text)))
	default:
		kind = "text/plain; charset=utf-8"
		a.Body = append([]byte(cmp.Or(word, p.text)), '\n')
	}
	a.Fields = append(a.Fields, Field{"Content-Type", kind})
	return a
}

// created is the answer to a message taken.
func (v *vendor) created(origin string, message ID, ttl string, now time.Time) Answer {
	a := Answer{Status: http.StatusCreated, Fields: []Field{{"Location", origin + "/m/" + message.String()}}}
	switch v.svc {
	case Chrome:
		a.Fields[0].Value = origin + "/0:" + message.String()
	case Mozilla:
		a.Fields = append(a.Fields, Field{"Ttl", ttl})
	case Apple:
		a.Fields = append(a.Fields, Field{"Apns-Id", message.String()})
	case Windows:
		a.Fields = append(a.Fields, Field{"X-Wns-Status", "received"}, Field{"X-Wns-Msg-Id", message.String()})
	case Ntfy:
		return Answer{
			Status: http.StatusOK, Fields: []Field{{"Content-Type", "application/json"}},
			Body: fmt.Appendf(nil, `{"id":"%s","time":%d,"event":"message"}`+"\n", message.String()[:12], now.Unix()),
		}
	}
	return a
}
