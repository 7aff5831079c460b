package simulator

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// apns is Apple's push service, one environment of it, as "Sending notification requests to APNs" and its sibling
// pages describe it. Where they say "required" or "should", it requires.
type apns struct {
	world   *world
	service Service
	now     func() time.Time
	byKeyID map[string]*App
	tokens  verified[apnsClaims]
}

func newAPNs(w *world, svc Service, now func() time.Time) *apns {
	a := &apns{world: w, service: svc, now: now, byKeyID: map[string]*App{}}
	for _, app := range w.apps {
		a.byKeyID[app.KeyID] = app
	}
	return a
}

// apnsClaims are a verified provider token's.
type apnsClaims struct {
	app *App
	iat int64 // Unix s
}

// Session is what APNs remembers of a connection: the team that it is for, and the last two provider tokens. Both are
// needed, since requests under way when a token is renewed still carry the old one. The zero value is a new connection's.
type Session struct {
	// one: it is held to a single stream, until a provider token is accepted on it.
	one atomic.Bool

	mu               sync.Mutex // guards the rest
	team             string
	current, earlier string
	iat              int64 // of current
}

const (
	apnsPayload     = 4096
	apnsVoIPPayload = 5120
	apnsPath        = "/3/device/"
)

// apnsTopics are the push types and the suffix that each wants on its topic.
var apnsTopics = map[string]string{
	"alert": "", "background": "", "mdm": "",
	"voip": ".voip", "pushtotalk": ".voip-ptt", "complication": ".complication", "location": ".location-query",
	"fileprovider": ".pushkit.fileprovider", "liveactivity": ".push-type.liveactivity",
	"widgets": ".push-type.widgets", "controls": ".push-type.controls",
}

func (a *apns) limit() int { return apnsVoIPPayload }

func (a *apns) identify(c *call) {
	if c.target, c.known = a.world.openAPNs(strings.TrimPrefix(c.Path, apnsPath)); c.known {
		c.app = int(c.target.app)
	}
}

func (a *apns) judge(c *call) Answer {
	id, named, fault := apnsID(c.Header)
	if fault == "" {
		fault = a.refusal(c)
	}
	ans := Answer{Status: http.StatusOK, ID: id, Named: named, Accepted: fault == ""}
	if fault != "" {
		ans = a.reject(apnsStatus[fault], fault, a.now().UnixMilli())
	}
	ans.Fields = append(ans.Fields, Field{"Apns-Id", id.String()})
	if a.service == APNsSandbox && ans.Accepted {
		ans.Fields = append(ans.Fields, Field{"Apns-Unique-Id", newID().String()})
	}
	return ans
}

// apnsID is the request's apns-id, or a new one.
func apnsID(h http.Header) (id ID, named bool, fault string) {
	switch v := h["Apns-Id"]; {
	case len(v) == 0:
		return newID(), false, ""
	case len(v) > 1:
		return newID(), false, "DuplicateHeaders"
	default:
		if id, named = ParseID(v[0]); !named {
			return newID(), false, "BadMessageId"
		}
		return id, true, ""
	}
}

func newID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// refusal is the reason why a request is refused, "" when it is not.
func (a *apns) refusal(c *call) string {
	token, ok := strings.CutPrefix(c.Path, apnsPath)
	switch {
	case !ok:
		return "BadPath"
	case c.Method != http.MethodPost:
		return "MethodNotAllowed"
	case token == "":
		return "MissingDeviceToken"
	}
	for _, name := range [...]string{"Authorization", "Apns-Topic", "Apns-Push-Type", "Apns-Priority", "Apns-Expiration", "Apns-Collapse-Id"} {
		if len(c.Header[name]) > 1 {
			return "DuplicateHeaders"
		}
	}
	app, reason := a.authorize(c)
	if reason != "" {
		return reason
	}
	kind, topic := c.Header.Get("Apns-Push-Type"), c.Header.Get("Apns-Topic")
	bundle, reason := apnsBundle(topic, kind, app)
	if reason != "" {
		return reason
	}
	if reason := apnsHeaders(c.Header, kind); reason != "" {
		return reason
	}
	if reason := apnsBody(c.Body, kind); reason != "" {
		return reason
	}
	return a.device(c, app, bundle)
}

func (a *apns) authorize(c *call) (*App, string) {
	h := c.Header.Get("Authorization")
	if h == "" {
		return nil, "MissingProviderToken"
	}
	if len(h) < 8 || !strings.EqualFold(h[:7], "bearer ") {
		return nil, "InvalidProviderToken"
	}
	token := h[7:]
	claims, ok := a.tokens.get(token)
	if !ok {
		if claims, ok = a.verify(token); !ok {
			return nil, "InvalidProviderToken"
		}
		a.tokens.put(token, claims)
	}
	switch age := a.now().Unix() - claims.iat; {
	case age > 3600:
		return nil, "ExpiredProviderToken"
	case age < -60:
		return nil, "InvalidProviderToken"
	}
	if c.Session == nil {
		return claims.app, ""
	}
	return claims.app, c.Session.use(token, claims)
}

func (a *apns) verify(token string) (apnsClaims, bool) {
	var app *App
	claims, err := parseJWT(es256, token, func(kid string) (any, error) {
		if app = a.byKeyID[kid]; app == nil {
			return nil, errNoKey
		}
		return app.apnsKey, nil
	})
	if err != nil || text(claims, "iss") != app.TeamID {
		return apnsClaims{}, false
	}
	iat, ok := number(claims, "iat")
	return apnsClaims{app: app, iat: iat}, ok
}

// use holds a connection to its team, and to a new provider token at most every 20 minutes. Apple's limit is on a
// key's tokens; it is judged here by connection, since several processes, or one started again, rightly have each
// their own.
func (s *Session) use(token string, c apnsClaims) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case token == s.current || token == s.earlier:
		return ""
	case s.team != "" && s.team != c.app.TeamID:
		return "UnrelatedKeyIdInToken"
	case s.current != "" && c.iat-s.iat < 20*60:
		return "TooManyProviderTokenUpdates"
	}
	s.team, s.earlier, s.current, s.iat = c.app.TeamID, s.current, token, c.iat
	s.one.Store(false)
	return ""
}

// apnsBundle finds the bundle id in a topic, or says why the credential may not send to the topic.
//
// Apple's page has no word for a topic and a push type that do not go together. What senders have seen: with the suffix of
// another type, InvalidPushType (AndrewBarba/apns2#23, Pr0Ger/PyAPNs2#87); without the suffix that the type wants,
// DeviceTokenNotForTopic (laravel-notification-channels/apn#88).
func apnsBundle(topic, kind string, app *App) (bundle, reason string) {
	suffix, known := apnsTopics[kind]
	switch {
	case topic == "":
		return "", "MissingTopic"
	case !known:
		return "", "InvalidPushType"
	case strings.ContainsFunc(topic, notInBundleID):
		return "", "BadTopic"
	}
	if b, ok := strings.CutSuffix(topic, suffix); ok && app.maySendTo(b, kind) {
		return b, ""
	}
	bundle, own := topic, ""
	for _, s := range apnsTopics {
		if b, ok := strings.CutSuffix(topic, s); ok && s != "" {
			bundle, own = b, s
		}
	}
	switch {
	case !app.maySendTo(bundle, kind):
		return "", "TopicDisallowed"
	case own == "":
		return "", "DeviceTokenNotForTopic"
	}
	return "", "InvalidPushType"
}

// maySendTo says whether a bundle id is the team's. Management has a topic of its own, and nothing else uses that.
func (a *App) maySendTo(bundle, kind string) bool {
	if kind == "mdm" {
		return bundle == a.MDMTopic
	}
	return bundle == a.Topic || bundle == a.BetaTopic
}

func notInBundleID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
}

func apnsHeaders(h http.Header, kind string) string {
	if len(h.Get("Apns-Collapse-Id")) > 64 {
		return "BadCollapseId"
	}
	switch p := h.Get("Apns-Priority"); {
	case kind == "background" && p != "5": // without one it is 10, which is an error
		return "BadPriority"
	case p != "" && p != "10" && p != "5" && p != "1":
		return "BadPriority"
	}
	if e := h.Get("Apns-Expiration"); e != "" {
		// Seconds, in 32 bits in Apple's older protocol: a time in milliseconds does not pass.
		if _, err := strconv.ParseUint(e, 10, 32); err != nil {
			return "BadExpirationDate"
		}
	}
	return ""
}

func apnsBody(body []byte, kind string) string {
	limit := apnsPayload
	if kind == "voip" {
		limit = apnsVoIPPayload
	}
	if len(body) > limit {
		return "PayloadTooLarge"
	}
	var payload map[string]json.RawMessage
	// Apple documents no word for a payload that it cannot read.
	if json.Unmarshal(body, &payload) != nil {
		return "PayloadEmpty"
	}
	switch kind {
	case "alert", "background", "liveactivity":
		if aps := payload["aps"]; len(aps) == 0 || aps[0] != '{' {
			return "PayloadEmpty"
		}
	}
	return ""
}

// device checks the device that a message to a bundle id is for. The app's devices have its topic, those that belong to
// another its beta's, and all are managed.
func (a *apns) device(c *call, app *App, bundle string) string {
	t := c.target
	own := app.Topic
	if t.other {
		own = app.BetaTopic
	}
	switch {
	case !c.known || t.service != a.service:
		return "BadDeviceToken"
	case t.app != app.index || bundle != own && bundle != app.MDMTopic:
		return "DeviceTokenNotForTopic"
	case t.gone:
		return "Unregistered"
	}
	return ""
}

var apnsStatus = map[string]int{
	"BadCollapseId": 400, "BadDeviceToken": 400, "BadExpirationDate": 400, "BadMessageId": 400, "BadPriority": 400,
	"BadTopic": 400, "DeviceTokenNotForTopic": 400, "DuplicateHeaders": 400, "IdleTimeout": 400,
	"InvalidPushType": 400, "MissingDeviceToken": 400, "MissingTopic": 400, "PayloadEmpty": 400, "TopicDisallowed": 400,
	"BadCertificate": 403, "BadCertificateEnvironment": 403, "BadEnvironmentKeyIdInToken": 403,
	"ExpiredProviderToken": 403, "Forbidden": 403, "InvalidProviderToken": 403, "MissingProviderToken": 403,
	"UnrelatedKeyIdInToken": 403, "BadPath": 404, "MethodNotAllowed": 405, "ExpiredToken": 410, "Unregistered": 410,
	"PayloadTooLarge": 413, "TooManyProviderTokenUpdates": 429, "TooManyRequests": 429,
	"InternalServerError": 500, "ServiceUnavailable": 503, "Shutdown": 503,
}

// apnsUsual is the reason that a status most often has.
var apnsUsual = map[int]string{
	400: "BadDeviceToken", 403: "InvalidProviderToken", 404: "BadPath", 405: "MethodNotAllowed", 410: "Unregistered",
	413: "PayloadTooLarge", 429: "TooManyRequests", 500: "InternalServerError", 503: "ServiceUnavailable",
}

func (a *apns) reject(status int, reason string, gone int64) Answer {
	b := append([]byte(`{"reason":`), strconv.Quote(reason)...)
	if status == http.StatusGone {
		b = strconv.AppendInt(append(b, `,"timestamp":`...), gone, 10)
	}
	return Answer{Status: status, Body: append(b, '}'), Fields: []Field{{"Content-Type", "application/json"}}}
}

func (a *apns) refuse(_ *call, f *Fault, status int) Answer {
	reason, gone := f.Reason, f.Timestamp
	if reason == "" {
		reason = apnsUsual[status]
	}
	if gone == 0 {
		gone = a.now().UnixMilli()
	}
	ans := a.reject(status, reason, gone)
	ans.add(Field{"Apns-Id", newID().String()})
	return f.retryAfter(ans)
}
