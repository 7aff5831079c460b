package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"
)

func apnsJWT(t testing.TB, a *App, iat time.Time, change func(*jwt.Token)) string {
	t.Helper()
	key, err := token.AuthKeyFromBytes([]byte(a.APNsKey))
	if err != nil {
		t.Fatal(err)
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": a.TeamID, "iat": iat.Unix()})
	tok.Header["kid"] = a.KeyID
	if change != nil {
		change(tok)
	}
	text, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const testID = "0193a5c0-0000-8000-8000-00000000000a"

func apnsHeader(t testing.TB, a *App) map[string]string {
	return map[string]string{
		"Authorization": "bearer " + apnsJWT(t, a, time.Now(), nil),
		"apns-topic":    a.Topic, "apns-push-type": "alert", "apns-id": testID, "apns-priority": "10",
		"apns-expiration": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), "apns-collapse-id": testID,
	}
}

var alert = []byte(`{"aps":{"alert":{"title":"Hello","body":"Łukasz"}}}`)

func TestAPNsStrict(t *testing.T) {
	s := start(t, nil)
	a, other := app(t, s, "demo"), app(t, s, "other")
	good := s.world.apnsToken(pick(t, s, "demo", APNs, Healthy).target)
	now := time.Now()
	bearer := func(iat time.Time, change func(*jwt.Token)) string { return "bearer " + apnsJWT(t, a, iat, change) }
	for _, c := range []struct {
		name   string
		token  string
		header map[string]string
		body   string
		method string
		path   string
		status int
		reason string
	}{
		{name: "good", status: 200},
		{name: "no priority", header: map[string]string{"apns-priority": ""}, status: 200},
		{name: "expiration 0", header: map[string]string{"apns-expiration": "0"}, status: 200},
		{name: "at the limit", body: `{"aps":{},"x":"` + strings.Repeat("x", 4096-17) + `"}`, status: 200},
		{name: "background", header: map[string]string{"apns-push-type": "background", "apns-priority": "5"}, body: `{"aps":{"content-available":1}}`, status: 200},
		{name: "management", header: map[string]string{"apns-push-type": "mdm", "apns-topic": a.MDMTopic}, body: `{"mdm":"magic"}`, status: 200},
		{name: "voip of 5 kB", header: map[string]string{"apns-push-type": "voip", "apns-topic": a.Topic + ".voip"}, body: `{"aps":{},"x":"` + strings.Repeat("x", 5000) + `"}`, status: 200},

		{name: "path", path: "/4/device/" + good, status: 404, reason: "BadPath"},
		{name: "query", path: "/3/device/" + good + "?x", status: 400, reason: "BadDeviceToken"},
		{name: "method", method: "PUT", status: 405, reason: "MethodNotAllowed"},
		{name: "no device", path: "/3/device/", status: 400, reason: "MissingDeviceToken"},
		{name: "no token", header: map[string]string{"Authorization": ""}, status: 403, reason: "MissingProviderToken"},
		{name: "basic", header: map[string]string{"Authorization": "Basic aGk6aGk="}, status: 403, reason: "InvalidProviderToken"},
		{name: "old token", header: map[string]string{"Authorization": bearer(now.Add(-61*time.Minute), nil)}, status: 403, reason: "ExpiredProviderToken"},
		{name: "token of the future", header: map[string]string{"Authorization": bearer(now.Add(5*time.Minute), nil)}, status: 403, reason: "InvalidProviderToken"},
		{name: "iss", header: map[string]string{"Authorization": bearer(now, func(tok *jwt.Token) { tok.Claims.(jwt.MapClaims)["iss"] = other.TeamID })}, status: 403, reason: "InvalidProviderToken"},
		{name: "no iat", header: map[string]string{"Authorization": bearer(now, func(tok *jwt.Token) { delete(tok.Claims.(jwt.MapClaims), "iat") })}, status: 403, reason: "InvalidProviderToken"},
		{name: "kid", header: map[string]string{"Authorization": bearer(now, func(tok *jwt.Token) { tok.Header["kid"] = other.KeyID })}, status: 403, reason: "InvalidProviderToken"},
		{name: "no kid", header: map[string]string{"Authorization": bearer(now, func(tok *jwt.Token) { delete(tok.Header, "kid") })}, status: 403, reason: "InvalidProviderToken"},
		{name: "signature", header: map[string]string{"Authorization": bearer(now, nil)[:200]}, status: 403, reason: "InvalidProviderToken"},
		{name: "algorithm", header: map[string]string{"Authorization": "bearer " + sign(t, jwt.SigningMethodHS256, []byte("k"), a.KeyID, jwt.MapClaims{"iss": a.TeamID, "iat": now.Unix()})}, status: 403, reason: "InvalidProviderToken"},
		{name: "no topic", header: map[string]string{"apns-topic": ""}, status: 400, reason: "MissingTopic"},
		{name: "other topic", header: map[string]string{"apns-topic": other.Topic}, status: 400, reason: "TopicDisallowed"},
		{name: "topic of nobody's", header: map[string]string{"apns-topic": a.Topic + ".dev"}, status: 400, reason: "TopicDisallowed"},
		{name: "topic of nobody's, with a suffix", header: map[string]string{"apns-topic": a.Topic + ".dev.voip"}, status: 400, reason: "TopicDisallowed"},
		{name: "another topic of the team's", header: map[string]string{"apns-topic": a.BetaTopic}, status: 400, reason: "DeviceTokenNotForTopic"},
		{name: "topic without its suffix", header: map[string]string{"apns-push-type": "voip"}, status: 400, reason: "DeviceTokenNotForTopic"},
		{name: "topic with another's suffix", header: map[string]string{"apns-topic": a.Topic + ".voip"}, status: 400, reason: "InvalidPushType"},
		{name: "management under the app's topic", header: map[string]string{"apns-push-type": "mdm"}, status: 400, reason: "TopicDisallowed"},
		{name: "an alert under management's topic", header: map[string]string{"apns-topic": a.MDMTopic}, status: 400, reason: "TopicDisallowed"},
		{name: "bad topic", header: map[string]string{"apns-topic": "com example"}, status: 400, reason: "BadTopic"},
		{name: "topic with an underscore", header: map[string]string{"apns-topic": "com.example_demo"}, status: 400, reason: "BadTopic"},
		{name: "no push type", header: map[string]string{"apns-push-type": ""}, status: 400, reason: "InvalidPushType"},
		{name: "push type", header: map[string]string{"apns-push-type": "loud"}, status: 400, reason: "InvalidPushType"},
		{name: "priority", header: map[string]string{"apns-priority": "7"}, status: 400, reason: "BadPriority"},
		{name: "background at 10", header: map[string]string{"apns-push-type": "background"}, status: 400, reason: "BadPriority"},
		{name: "background without priority", header: map[string]string{"apns-push-type": "background", "apns-priority": ""}, status: 400, reason: "BadPriority"},
		{name: "expiration", header: map[string]string{"apns-expiration": "soon"}, status: 400, reason: "BadExpirationDate"},
		{name: "expiration in ms", header: map[string]string{"apns-expiration": strconv.FormatInt(now.UnixMilli(), 10)}, status: 400, reason: "BadExpirationDate"},
		{name: "collapse id", header: map[string]string{"apns-collapse-id": strings.Repeat("c", 65)}, status: 400, reason: "BadCollapseId"},
		{name: "id", header: map[string]string{"apns-id": "42"}, status: 400, reason: "BadMessageId"},
		{name: "too large", body: `{"aps":{},"x":"` + strings.Repeat("x", 4096-16) + `"}`, status: 413, reason: "PayloadTooLarge"},
		{name: "voip too large", header: map[string]string{"apns-push-type": "voip", "apns-topic": a.Topic + ".voip"}, body: `{"aps":{},"x":"` + strings.Repeat("x", 5200) + `"}`, status: 413, reason: "PayloadTooLarge"},
		{name: "empty", body: " ", status: 400, reason: "PayloadEmpty"},
		{name: "no aps", body: `{"alert":"hi"}`, status: 400, reason: "PayloadEmpty"},
		{name: "aps no object", body: `{"aps":"hi"}`, status: 400, reason: "PayloadEmpty"},
		{name: "no json", body: `{"aps":{}`, status: 400, reason: "PayloadEmpty"},
		{name: "device", token: "abc", status: 400, reason: "BadDeviceToken"},
		{name: "unknown device", token: strings.Repeat("ab", 32), status: 400, reason: "BadDeviceToken"},
		{name: "device altered", token: good[:63] + string("01"[(good[63]&1)^1]), status: 400, reason: "BadDeviceToken"},
		{name: "other environment", token: s.world.apnsToken(pick(t, s, "demo", APNs, Misplaced).target), status: 400, reason: "BadDeviceToken"},
		{name: "other app", token: s.world.apnsToken(pick(t, s, "other", APNs, Healthy).target), status: 400, reason: "DeviceTokenNotForTopic"},
		{name: "gone", token: s.world.apnsToken(pick(t, s, "demo", APNs, Gone).target), status: 410, reason: "Unregistered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := apnsHeader(t, a)
			for k, v := range c.header {
				h[k] = v
			}
			path, body := "/3/device/"+good, alert
			if c.token != "" {
				path = "/3/device/" + c.token
			}
			if c.path != "" {
				path = c.path
			}
			if c.body != "" {
				body = []byte(c.body)
			}
			r := post(t, s.URL(APNs)+path, h, body)
			if c.method != "" {
				r.Method = c.method
			}
			res := do(t, client(t, s), r)
			if res.status != c.status || res.proto != "HTTP/2.0" {
				t.Fatalf("%s %d %s, want %d", res.proto, res.status, res.body, c.status)
			}
			if want := `{"reason":"` + c.reason + `"`; c.reason != "" && !strings.HasPrefix(res.body, want) {
				t.Errorf("body %s, want %s", res.body, want)
			}
			if c.status == 410 && !strings.Contains(res.body, `,"timestamp":1`) {
				t.Errorf("no timestamp in %s", res.body)
			}
			if id := res.header.Get("apns-id"); c.name != "id" && id != testID {
				t.Errorf("apns-id %s", id)
			}
		})
	}
}

func TestAPNsDuplicateHeader(t *testing.T) {
	s := start(t, nil)
	a := app(t, s, "demo")
	r := post(t, s.URL(APNs)+"/3/device/"+s.world.apnsToken(pick(t, s, "demo", APNs, Healthy).target), apnsHeader(t, a), alert)
	r.Header.Add("apns-topic", a.Topic)
	if res := do(t, client(t, s), r); res.status != 400 || !strings.Contains(res.body, "DuplicateHeaders") {
		t.Errorf("%d %s", res.status, res.body)
	}
}

func TestAPNsOnlyHTTP2(t *testing.T) {
	s := start(t, nil)
	c := client(t, s)
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	c.Transport.(*http.Transport).TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if res, err := c.Do(post(t, s.URL(APNs)+"/3/device/x", nil, nil)); err == nil {
		res.Body.Close()
		t.Error("HTTP/1.1 was served")
	}
	if res := do(t, c, post(t, s.URL(FCM)+"/v1/projects/x/messages:send", nil, nil)); res.status != 401 || res.proto != "HTTP/1.1" {
		t.Errorf("FCM over HTTP/1.1: %s %d", res.proto, res.status)
	}
}

// A connection is one team's, and takes a new provider token at most every 20 minutes.
func TestAPNsConnectionRules(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().Unix())
	now := func() time.Time { return time.Unix(clock.Load(), 0) }
	s := start(t, func(o *Options) { o.Now = now })
	a, other := app(t, s, "demo"), app(t, s, "other")
	send := func(c *http.Client, name, jwt string, of *App) string {
		t.Helper()
		h := apnsHeader(t, of)
		h["Authorization"] = "bearer " + jwt
		res := do(t, c, post(t, s.URL(APNs)+"/3/device/"+s.world.apnsToken(pick(t, s, name, APNs, Healthy).target), h, alert))
		return strconv.Itoa(res.status) + res.body
	}
	c, fresh := client(t, s), client(t, s)
	first := apnsJWT(t, a, now(), nil)
	wantEqual(t, "200", send(c, "demo", first, a))
	wantEqual(t, `403{"reason":"UnrelatedKeyIdInToken"}`, send(c, "other", apnsJWT(t, other, now(), nil), other))
	clock.Add(19 * 60)
	early := apnsJWT(t, a, now(), nil)
	wantEqual(t, `429{"reason":"TooManyProviderTokenUpdates"}`, send(c, "demo", early, a))
	wantEqual(t, "200", send(fresh, "demo", early, a))
	clock.Add(2 * 60)
	second := apnsJWT(t, a, now(), nil)
	wantEqual(t, "200", send(c, "demo", second, a))
	wantEqual(t, "200", send(c, "demo", first, a)) // requests that were under way at the renewal
	clock.Add(40 * 60)
	wantEqual(t, `403{"reason":"ExpiredProviderToken"}`, send(c, "demo", first, a))
}

func wantEqual(t *testing.T, want, got string) {
	t.Helper()
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// sideshow/apns2, which knows nothing of the simulator, sends to both environments.
func TestAPNs2IsAccepted(t *testing.T) {
	s := start(t, nil)
	a := app(t, s, "demo")
	key, err := token.AuthKeyFromBytes([]byte(a.APNsKey))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	c := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: a.KeyID, TeamID: a.TeamID})
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	c.HTTPClient.Transport = tr
	defer tr.CloseIdleConnections()
	for _, svc := range []Service{APNs, APNsSandbox} {
		c.Host = s.URL(svc)
		res, err := c.Push(&apns2.Notification{
			ApnsID: testID, DeviceToken: s.world.apnsToken(pick(t, s, "demo", svc, Healthy).target), Topic: a.Topic,
			Payload:    payload.NewPayload().AlertTitle("Olá").Badge(3).MutableContent(),
			Expiration: time.Now().Add(time.Hour), Priority: apns2.PriorityHigh, CollapseID: "c", PushType: apns2.PushTypeAlert,
		})
		if err != nil || !res.Sent() || res.ApnsID != testID || (res.ApnsUniqueID != "") != (svc == APNsSandbox) {
			t.Errorf("%s: %+v %v", svc, res, err)
		}
	}
	res, err := c.Push(&apns2.Notification{
		DeviceToken: s.world.apnsToken(pick(t, s, "demo", APNsSandbox, Gone).target), Topic: a.Topic, Payload: alert,
	})
	if err != nil || res.Reason != apns2.ReasonUnregistered || time.Since(res.Timestamp.Time).Abs() > time.Minute {
		t.Errorf("%+v %v", res, err)
	}
	id, _ := ParseID(testID)
	if n := s.Received(id); n != 2 {
		t.Errorf("received %d times, want 2", n)
	}
	sum := summary(t, s)
	if sum.Distinct != 1 || sum.Repeats != 1 || sum.ByStatus["apns"]["200"] != 2 || sum.ByOrigin["apns-sandbox"]["410"] != 1 || sum.ByApp["demo"]["200"] != 2 {
		t.Errorf("%+v", sum)
	}
}
