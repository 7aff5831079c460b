package simulator

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// webPush is one vendor's push service: RFC 8030 with VAPID (RFC 8292) and, which no real one could, a look into the
// message (RFC 8291) as its browser would see it.
type webPush struct {
	world  *world
	vendor *vendor
	svc    Service
	origin string
	now    func() time.Time
	tokens verified[vapidClaims]
}

func newWebPush(w *world, svc Service, origin string, now func() time.Time) *webPush {
	return &webPush{world: w, vendor: vendors[svc], svc: svc, origin: origin, now: now}
}

// vapidClaims are a verified Authorization header's.
type vapidClaims struct {
	key string // k, as it was sent
	exp int64  // Unix s
}

const webPushBody = 4096

func (p *webPush) limit() int { return webPushBody }

func (p *webPush) subscription(r *http.Request) (target, bool) {
	token, ok := strings.CutPrefix(r.RequestURI, p.vendor.prefix)
	if !ok {
		return target{}, false
	}
	t, ok := p.world.openSubscription(token)
	return t, ok && t.service == p.svc
}

func (p *webPush) app(r *http.Request, _ []byte) int {
	if t, ok := p.subscription(r); ok && p.world.app(t) != nil {
		return int(t.app)
	}
	return -1
}

func (p *webPush) judge(r *http.Request, body []byte) answer {
	t, ok := p.subscription(r)
	switch {
	case r.Method != http.MethodPost:
		return p.vendor.problem(wrongMethod, "")
	case !ok:
		return p.vendor.problem(noSubscription, "")
	}
	if fault, detail := p.authorize(r, t); fault != nil {
		return p.vendor.problem(fault, detail)
	}
	if t.gone {
		return p.vendor.problem(gone, "")
	}
	if fault := p.headers(r.Header); fault != nil {
		return p.vendor.problem(fault, "")
	}
	if len(body) > webPushBody {
		return p.vendor.problem(tooLarge, "")
	}
	return p.read(r.Header, body, t)
}

// read opens the message and takes it. An empty body is a message too: one that only wakes the browser.
func (p *webPush) read(h http.Header, body []byte, t target) answer {
	var message struct{ ID string }
	if len(body) > 0 {
		if h.Get("Content-Encoding") != "aes128gcm" {
			return p.vendor.problem(badEncoding, "Content-Encoding must be aes128gcm")
		}
		plain, err := decrypt(body, p.world.subscriptionKey(t), p.world.authSecret(t))
		if err != nil {
			return p.vendor.problem(badEncoding, err.Error())
		}
		// What an app sends its own pages need not be JSON: then there is no id.
		_ = json.Unmarshal(plain, &message)
	}
	id, named := ParseID(message.ID)
	a := answer{status: http.StatusCreated, accepted: true, id: id, named: named}
	a.fields = p.vendor.created(p.origin, newID(), h.Get("Ttl"))
	return a
}

// authorize checks the VAPID header against the push service and the subscription.
func (p *webPush) authorize(r *http.Request, t target) (*problem, string) {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return noVAPID, "one Authorization header is needed"
	}
	claims, ok := p.tokens.get(values[0])
	if !ok {
		var detail string
		if claims, detail = p.verify(values[0]); detail != "" {
			return badVAPID, detail
		}
		p.tokens.put(values[0], claims)
	}
	switch left := claims.exp - p.now().Unix(); {
	case left <= 0:
		return badVAPID, "exp is past"
	case left > 24*3600:
		return badVAPID, "exp is more than 24 hours ahead"
	}
	if a := p.world.app(t); a == nil || a.VAPIDPublic != claims.key {
		return otherVAPID, ""
	}
	return nil, ""
}

// verify checks all that does not change with time, and says what is wrong.
func (p *webPush) verify(header string) (vapidClaims, string) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "vapid") {
		return vapidClaims{}, "the scheme is not vapid"
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		params[name] = value
	}
	key, err := vapidKey(params["k"])
	if err != nil {
		return vapidClaims{}, "k: " + err.Error()
	}
	c, err := parseJWT(es256, params["t"], func(string) (any, error) { return key, nil })
	if err != nil {
		return vapidClaims{}, "t: not signed by k with ES256"
	}
	exp, ok := number(c, "exp")
	switch {
	case text(c, "aud") != p.origin:
		return vapidClaims{}, "aud is not " + p.origin
	case !ok:
		return vapidClaims{}, "exp is missing"
	case !p.subject(text(c, "sub")):
		return vapidClaims{}, "sub is neither a mailto: nor an https: address"
	}
	return vapidClaims{key: params["k"], exp: exp}, ""
}

// subject says whether one could reach the sender. Apple does not believe in localhost and the like.
func (p *webPush) subject(sub string) bool {
	host := ""
	if mail, ok := strings.CutPrefix(sub, "mailto:"); ok {
		name, domain, ok := strings.Cut(mail, "@")
		if !ok || name == "" || strings.ContainsAny(name, ": ") {
			return false
		}
		host = domain
	} else if u, err := url.Parse(sub); err == nil && u.Scheme == "https" {
		host = u.Hostname()
	}
	return host != "" && (p.svc != Apple || strings.Contains(host, ".") && !strings.HasSuffix(host, ".local") && !strings.HasSuffix(host, ".invalid"))
}

func (p *webPush) headers(h http.Header) *problem {
	ttl := h["Ttl"]
	if len(ttl) != 1 {
		return noTTL
	}
	n, err := strconv.ParseUint(ttl[0], 10, 31)
	if err != nil || p.vendor.maxTTL > 0 && n > p.vendor.maxTTL || n == 0 && !p.vendor.zeroTTL {
		return badTTL
	}
	switch h.Get("Urgency") {
	case "", "very-low", "low", "normal", "high":
	default:
		return badUrgency
	}
	if topic, ok := h["Topic"]; ok && (len(topic) != 1 || !isTopic(topic[0])) {
		return badTopic
	}
	return nil
}

// isTopic follows RFC 8030 section 5.4.
func isTopic(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 32
}

func (p *webPush) refuse(f *Fault, status int) answer {
	switch f.Kind {
	case Quota:
		status = throttled.statuses[p.svc-Chrome]
	case Credentials:
		status = badVAPID.statuses[p.svc-Chrome]
	}
	pr := problem{text: "A fault of the simulator."}
	for _, known := range problems {
		if known.statuses[p.svc-Chrome] == status {
			pr = *known
			break
		}
	}
	pr.statuses[p.svc-Chrome] = status
	if f.Reason != "" {
		pr.apple = f.Reason
	}
	a := p.vendor.problem(&pr, "")
	a.fields = f.retryAfter(a.fields)
	return a
}
