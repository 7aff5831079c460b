package simulator

import (
	"fmt"
	"net/http"
	"strconv"
)

// vendor is how a push service differs from the others.
type vendor struct {
	svc     Service
	prefix  string // of an endpoint's path and query, before the token
	maxTTL  uint64 // s; 0: longer ones are taken and cut
	zeroTTL bool   // TTL 0, "now or never", is taken
}

var vendors = map[Service]*vendor{
	Chrome:  {svc: Chrome, prefix: "/fcm/send/", maxTTL: 28 * 24 * 3600, zeroTTL: true},
	Mozilla: {svc: Mozilla, prefix: "/wpush/v2/", zeroTTL: true},
	Apple:   {svc: Apple, prefix: "/", maxTTL: 30 * 24 * 3600, zeroTTL: true},
	Windows: {svc: Windows, prefix: "/w/?token=", maxTTL: 28 * 24 * 3600},
}

// problem is what can be wrong with a push, in each vendor's terms.
type problem struct {
	statuses [4]int // Chrome, Mozilla, Apple, Windows
	errno    int    // Mozilla's (autopush, autoendpoint/src/error.rs)
	apple    string // Apple's reason
	text     string // Chrome's body
}

var (
	wrongMethod    = &problem{[4]int{405, 405, 405, 405}, 0, "MethodNotAllowed", "method not allowed"}
	noSubscription = &problem{[4]int{404, 404, 404, 404}, 102, "BadDeviceToken", "invalid push subscription endpoint"}
	gone           = &problem{[4]int{410, 410, 410, 410}, 106, "Unregistered", "push subscription has unsubscribed or expired."}
	noVAPID        = &problem{[4]int{401, 401, 403, 401}, 109, "BadJwtToken", "authorization header must be specified."}
	badVAPID       = &problem{[4]int{403, 401, 403, 401}, 109, "BadJwtToken", "invalid JWT provided"}
	otherVAPID     = &problem{
		[4]int{403, 401, 400, 403},
		109, "VapidPkHashMismatch",
		"the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.",
	}
	noTTL       = &problem{[4]int{400, 400, 400, 400}, 111, "BadTtl", "missing TTL header"}
	badTTL      = &problem{[4]int{400, 400, 400, 400}, 112, "BadTtl", "TTL out of range"}
	badUrgency  = &problem{[4]int{400, 400, 400, 400}, 110, "BadUrgency", "invalid Urgency header"}
	badTopic    = &problem{[4]int{400, 400, 400, 400}, 113, "BadWebPushTopic", "invalid Topic header"}
	badEncoding = &problem{[4]int{400, 400, 400, 400}, 110, "BadEncoding", "invalid encryption"}
	tooLarge    = &problem{[4]int{413, 413, 413, 413}, 104, "PayloadTooLarge", "payload too large"}
	// Windows throttles with 406 (MicrosoftDocs/windows-dev-docs#4166).
	throttled  = &problem{[4]int{429, 429, 429, 406}, 201, "TooManyRequests", "too many requests"}
	failed     = &problem{[4]int{500, 500, 500, 500}, 999, "InternalServerError", "internal error"}
	overloaded = &problem{[4]int{503, 503, 503, 503}, 201, "ServiceUnavailable", "service unavailable"}

	// problems in the order in which a fault's status is looked up.
	problems = []*problem{badVAPID, noSubscription, gone, badTTL, tooLarge, throttled, failed, overloaded}
)

// problem words what is wrong as the vendor does. detail is the simulator's own, for whoever debugs a sender.
func (v *vendor) problem(p *problem, detail string) answer {
	a := answer{status: p.statuses[v.svc-Chrome]}
	if detail != "" {
		a.fields = append(a.fields, field{"X-Simulator-Detail", detail})
	}
	kind := "application/json"
	switch v.svc {
	case Mozilla:
		a.body = fmt.Appendf(nil, `{"code":%d,"errno":%d,"error":%s,"message":%s,"more_info":"http://autopush.readthedocs.io/en/latest/http.html#error-codes"}`,
			a.status, p.errno, strconv.Quote(http.StatusText(a.status)), strconv.Quote(p.text))
	case Apple:
		a.body = fmt.Appendf(nil, `{"reason":%s}`, strconv.Quote(p.apple))
	case Windows:
		a.fields = append(a.fields, field{"X-Wns-Status", "dropped"}, field{"X-Wns-Error-Description", p.text})
		return a
	default:
		kind = "text/plain; charset=utf-8"
		a.body = append([]byte(p.text), '\n')
	}
	a.fields = append(a.fields, field{"Content-Type", kind})
	return a
}

// created is the header of an answer to a message taken.
func (v *vendor) created(origin string, message ID, ttl string) []field {
	switch v.svc {
	case Mozilla:
		return []field{{"Location", origin + "/m/" + message.String()}, {"Ttl", ttl}}
	case Apple:
		return []field{{"Apns-Id", message.String()}, {"Location", origin + "/m/" + message.String()}}
	case Windows:
		return []field{{"X-Wns-Status", "received"}, {"X-Wns-Msg-Id", message.String()}, {"Location", origin + "/m/" + message.String()}}
	}
	return []field{{"Location", origin + "/0:" + message.String()}}
}
