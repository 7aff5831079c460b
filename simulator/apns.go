package simulator

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
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

// apnsSession is what a connection remembers: the team that it is for, and the last two provider tokens. Both are
// needed, since requests under way when a token is renewed still carry the old one.
type apnsSession struct {
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

func (a *apns) app(r *http.Request, _ []byte) int {
	if t, ok := a.world.openAPNs(strings.TrimPrefix(r.URL.Path, apnsPath)); ok {
		return int(t.app)
	}
	return -1
}

func (a *apns) judge(r *http.Request, body []byte) answer {
	id, named, fault := apnsID(r.Header)
	if fault == "" {
		fault = a.refusal(r, body)
	}
	ans := answer{status: http.StatusOK, id: id, named: named, accepted: fault == ""}
	if fault != "" {
		ans = a.reject(apnsStatus[fault], fault, a.now().UnixMilli())
	}
	ans.fields = append(ans.fields, field{"Apns-Id", id.String()})
	if a.service == APNsSandbox && ans.accepted {
		ans.fields = append(ans.fields, field{"Apns-Unique-Id", newID().String()})
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
func (a *apns) refusal(r *http.Request, body []byte) string {
	token, ok := strings.CutPrefix(r.URL.Path, apnsPath)
	switch {
	case !ok:
		return "BadPath"
	case r.Method != http.MethodPost:
		return "MethodNotAllowed"
	case token == "":
		return "MissingDeviceToken"
	}
	for _, name := range [...]string{"Authorization", "Apns-Topic", "Apns-Push-Type", "Apns-Priority", "Apns-Expiration", "Apns-Collapse-Id"} {
		if len(r.Header[name]) > 1 {
			return "DuplicateHeaders"
		}
	}
	app, reason := a.authorize(r)
	if reason != "" {
		return reason
	}
	kind := r.Header.Get("Apns-Push-Type")
	if reason := a.headers(r.Header, kind, app); reason != "" {
		return reason
	}
	if reason := apnsBody(body, kind); reason != "" {
		return reason
	}
	return a.device(token, app)
}

func (a *apns) authorize(r *http.Request) (*App, string) {
	h := r.Header.Get("Authorization")
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
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		return claims.app, ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reason := c.use(token, claims)
	if reason == "" {
		c.one.Store(false)
	}
	return claims.app, reason
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
func (s *apnsSession) use(token string, c apnsClaims) string {
	switch {
	case token == s.current || token == s.earlier:
		return ""
	case s.team != "" && s.team != c.app.TeamID:
		return "UnrelatedKeyIdInToken"
	case s.current != "" && c.iat-s.iat < 20*60:
		return "TooManyProviderTokenUpdates"
	}
	s.team, s.earlier, s.current, s.iat = c.app.TeamID, s.current, token, c.iat
	return ""
}

func (a *apns) headers(h http.Header, kind string, app *App) string {
	suffix, known := apnsTopics[kind]
	topic := h.Get("Apns-Topic")
	switch {
	case topic == "":
		return "MissingTopic"
	case !known:
		return "InvalidPushType"
	case strings.ContainsAny(topic, " /"):
		return "BadTopic"
	case topic != app.Topic+suffix && (kind != "mdm" || !strings.HasPrefix(topic, "com.apple.mgmt.")):
		return "TopicDisallowed"
	case len(h.Get("Apns-Collapse-Id")) > 64:
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

func (a *apns) device(token string, app *App) string {
	t, ok := a.world.openAPNs(token)
	switch {
	case !ok || t.service != a.service:
		return "BadDeviceToken"
	case t.app != app.index:
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

func (a *apns) reject(status int, reason string, gone int64) answer {
	b := append([]byte(`{"reason":`), strconv.Quote(reason)...)
	if status == http.StatusGone {
		b = strconv.AppendInt(append(b, `,"timestamp":`...), gone, 10)
	}
	return answer{status: status, body: append(b, '}'), fields: []field{{"Content-Type", "application/json"}}}
}

func (a *apns) refuse(f *Fault, status int) answer {
	reason, gone := f.Reason, f.Timestamp
	if reason == "" {
		reason = apnsUsual[status]
	}
	if gone == 0 {
		gone = a.now().UnixMilli()
	}
	ans := a.reject(status, reason, gone)
	ans.fields = f.retryAfter(append(ans.fields, field{"Apns-Id", newID().String()}))
	return ans
}
