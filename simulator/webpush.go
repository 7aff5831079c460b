package simulator

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
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

func (p *webPush) identify(c *call) {
	if c.target, c.known = p.vendor.open(p.world, c.Path); c.known {
		c.app = int(c.target.app)
	}
}

func (p *webPush) judge(c *call) Answer {
	t := c.target
	switch {
	case c.Method != http.MethodPost:
		return p.vendor.problem(wrongMethod, "", "")
	case !c.known || p.world.app(t) == nil:
		return p.vendor.problem(noSubscription, "", "")
	}
	if p.svc != Ntfy { // it reads none of these
		if fault, detail := p.authorize(c); fault != nil {
			return p.vendor.problem(fault, "", detail)
		}
	}
	if t.gone {
		return p.vendor.problem(gone, "", "")
	}
	if p.svc == Ntfy {
		if len(c.Body) > webPushBody {
			return p.take(c, "") // it keeps 4,096 bytes, which nobody can read, and says nothing (server.go, util.Peek)
		}
		return p.read(c)
	}
	if fault := p.headers(c.Header); fault != nil {
		return p.vendor.problem(fault, "", "")
	}
	if len(c.Body) > webPushBody {
		return p.vendor.problem(tooLarge, "", "")
	}
	return p.read(c)
}

// read opens the message and takes it. An empty body is a message too: one that only wakes the browser.
func (p *webPush) read(c *call) Answer {
	var message struct{ ID string }
	if len(c.Body) > 0 {
		if c.Header.Get("Content-Encoding") != "aes128gcm" {
			return p.vendor.problem(badEncoding, "", "Content-Encoding must be aes128gcm")
		}
		plain, err := decrypt(c.Body, p.world.subscriptionKey(c.target).private, p.world.authSecret(c.target))
		if err != nil {
			return p.vendor.problem(badEncoding, "", err.Error())
		}
		// What an app sends its own pages need not be JSON: then there is no id.
		_ = json.Unmarshal(plain, &message)
	}
	return p.take(c, message.ID)
}

func (p *webPush) take(c *call, id string) Answer {
	a := p.vendor.created(p.origin, newID(), c.Header.Get("Ttl"), p.now())
	a.Accepted = true
	a.ID, a.Named = ParseID(id)
	return a
}

// authorize checks the VAPID header against the push service and the subscription.
func (p *webPush) authorize(c *call) (*problem, string) {
	values := c.Header["Authorization"]
	if len(values) != 1 {
		return noVAPID, "one Authorization header is needed"
	}
	claims, ok := p.tokens.get(values[0])
	if !ok {
		var fault *problem
		var detail string
		if claims, fault, detail = p.verify(values[0]); fault != nil {
			return fault, detail
		}
		p.tokens.put(values[0], claims)
	}
	switch left := claims.exp - p.now().Unix(); {
	case left <= 0:
		return badVAPID, "exp is past"
	case left > 24*3600:
		return badVAPID, "exp is more than 24 hours ahead"
	}
	if p.world.madeWith(c.target) != claims.key {
		return otherVAPID, ""
	}
	return nil, ""
}

// verify checks all that does not change with time, and says what is wrong.
func (p *webPush) verify(header string) (vapidClaims, *problem, string) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "vapid") {
		return vapidClaims{}, badScheme, "the scheme is not vapid"
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		params[name] = value
	}
	key, err := vapidKey(params["k"])
	if err != nil {
		return vapidClaims{}, badKey, "k: " + err.Error()
	}
	c, err := parseJWT(es256, params["t"], func(string) (any, error) { return key, nil })
	if err != nil {
		return vapidClaims{}, badVAPID, "t: not signed by k with ES256"
	}
	exp, ok := number(c, "exp")
	switch {
	case text(c, "aud") != p.origin:
		return vapidClaims{}, badVAPID, "aud is not " + p.origin
	case !ok:
		return vapidClaims{}, badVAPID, "exp is missing"
	case !p.subject(text(c, "sub")):
		return vapidClaims{}, badVAPID, "sub is no mailto: or https: address that this service takes"
	}
	return vapidClaims{key: params["k"], exp: exp}, nil, ""
}

// subject says whether one could reach the sender. Apple does not believe in localhost and the like, and takes no space
// (developer.apple.com/forums/thread/725473, web-push-libs/web-push#947).
func (p *webPush) subject(sub string) bool {
	host := ""
	if mail, ok := strings.CutPrefix(sub, "mailto:"); ok {
		name, domain, ok := strings.Cut(mail, "@")
		if !ok || name == "" || strings.Contains(name, ":") {
			return false
		}
		host = domain
	} else if u, err := url.Parse(sub); err == nil && u.Scheme == "https" {
		host = u.Hostname()
	}
	if p.svc != Apple {
		return host != ""
	}
	top := host[strings.LastIndexByte(host, '.')+1:]
	return top != "" && top != host && !strings.ContainsAny(sub, " <>") && !slices.Contains([]string{"local", "localhost", "invalid"}, top)
}

func (p *webPush) headers(h http.Header) *problem {
	ttl := h["Ttl"]
	if len(ttl) != 1 {
		return noTTL
	}
	n, err := strconv.ParseInt(ttl[0], 10, 64)
	switch {
	case err != nil && p.svc == Mozilla:
		return noTTL
	case err != nil || n < 0 || p.vendor.maxTTL > 0 && n > p.vendor.maxTTL || n == 0 && !p.vendor.zeroTTL:
		return badTTL
	}
	switch h.Get("Urgency") {
	case "", "very-low", "low", "normal", "high":
	default:
		return badUrgency
	}
	if topic, ok := h["Topic"]; ok && (len(topic) != 1 || !p.topic(topic[0])) {
		return badTopic
	}
	return nil
}

// topic says whether a Topic is one. Apple decodes it, and base64 has no text of 4n+1 characters (AltanS/collie#90).
func (p *webPush) topic(s string) bool { return isTopic(s) && (p.svc != Apple || len(s)%4 != 1) }

// isTopic follows RFC 8030 section 5.4.
func isTopic(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 32
}

func (p *webPush) refuse(_ *call, f *Fault, status int) Answer {
	switch {
	case f.counts():
		status = throttled.status(p.svc)
	case f.Kind == Credentials:
		status = badVAPID.status(p.svc)
	}
	word := f.Reason
	limits := status == throttled.status(p.svc) || status == http.StatusTooManyRequests
	if word == "" && p.svc == Windows && f.aimed() && limits {
		word = "channelthrottled" // one subscription's, and not the sender's
	}
	pr := p.vendor.usual(status)
	pr.statuses[p.svc-Chrome] = status
	return f.retryAfter(p.vendor.problem(&pr, word, ""))
}
