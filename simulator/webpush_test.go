package simulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/golang-jwt/jwt/v5"
)

// sealed encrypts as RFC 8291 says, with what a test wants wrong. plain holds its own delimiter and padding.
type sealed struct {
	plain      []byte
	recordSize uint32
	auth       []byte
}

func (e sealed) bytes(t testing.TB, s *Simulator, d device) []byte {
	t.Helper()
	sender, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	auth := e.auth
	if auth == nil {
		auth = s.world.authSecret(d.target)
	}
	// The browser's half of the derivation stands for the sender's: the shared secret is the same.
	key, nonce, err := contentKey(s.world.subscriptionKey(d.target).private, sender.PublicKey(), auth, salt)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	size := e.recordSize
	if size == 0 {
		size = 4096
	}
	body := append(binary.BigEndian.AppendUint32(salt, size), 65)
	body = append(body, sender.PublicKey().Bytes()...)
	return gcm.Seal(body, nonce, e.plain, nil)
}

func vapid(t testing.TB, a *App, origin string, change func(jwt.MapClaims)) string {
	t.Helper()
	c := jwt.MapClaims{"aud": origin, "exp": time.Now().Add(12 * time.Hour).Unix(), "sub": a.Subject}
	if change != nil {
		change(c)
	}
	return "vapid t=" + sign(t, jwt.SigningMethodES256, a.vapidKey, "", c) + ", k=" + a.VAPIDPublic
}

// formerVAPID is signed with the key that the app had before.
func formerVAPID(t testing.TB, a *App, origin string) string {
	former := *a
	former.VAPIDPublic = a.FormerVAPIDPublic
	scalar, err := base64.RawURLEncoding.DecodeString(a.FormerVAPIDPrivate)
	if err != nil {
		t.Fatal(err)
	}
	if former.vapidKey, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err != nil {
		t.Fatal(err)
	}
	return vapid(t, &former, origin, nil)
}

func endpointOf(s *Simulator, d device) string {
	return s.URL(d.service) + vendors[d.service].endpoint(s.world, d.target)
}

var push = []byte(`{"id":"` + testID + `","title":"Hello Zoë"}` + "\x02")

func TestWebPushStrict(t *testing.T) {
	s := start(t, nil)
	a, other, c := app(t, s, "demo"), app(t, s, "other"), client(t, s)
	set := func(name string, v any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = v } }
	for _, k := range []struct {
		name    string
		fate    Fate
		path    string
		header  map[string]string
		claims  func(jwt.MapClaims)
		body    *sealed
		raw     []byte
		status  [4]int // Chrome, Mozilla, Apple, Windows
		mozilla string
		apple   string
	}{
		{name: "good", status: [4]int{201, 201, 201, 201}},
		{name: "padded", body: &sealed{plain: append(push[:len(push):len(push)], make([]byte, 3000)...)}, status: [4]int{201, 201, 201, 201}},
		{name: "largest", body: &sealed{plain: append(make([]byte, 3993), 2)}, status: [4]int{201, 201, 201, 201}},
		{name: "https subject", claims: set("sub", "https://example.com/contact"), status: [4]int{201, 201, 201, 201}},
		{name: "topic and urgency", header: map[string]string{"Topic": strings.Repeat("t", 32), "Urgency": "very-low"}, status: [4]int{201, 201, 201, 201}},
		{name: "TTL 0", header: map[string]string{"TTL": "0"}, status: [4]int{201, 201, 201, 400}},
		{name: "TTL of 40 days", header: map[string]string{"TTL": "3456000"}, status: [4]int{400, 201, 400, 400}, apple: "BadTtl"},

		{name: "no subscription", path: "x", status: [4]int{404, 404, 404, 404}, mozilla: "102"},
		{name: "gone", fate: Gone, status: [4]int{410, 410, 410, 410}, mozilla: "106", apple: "Unregistered"},
		{name: "other key's subscription", fate: Misplaced, status: [4]int{403, 401, 400, 403}, mozilla: "109", apple: "VapidPkHashMismatch"},
		{name: "a former key", fate: Misplaced, header: map[string]string{"Authorization": "former"}, status: [4]int{201, 201, 201, 201}},
		{name: "a former key and a newer subscription", header: map[string]string{"Authorization": "former"}, status: [4]int{403, 401, 400, 403}, apple: "VapidPkHashMismatch"},
		{name: "other app's key", header: map[string]string{"Authorization": "other"}, status: [4]int{403, 401, 400, 403}, apple: "VapidPkHashMismatch"},
		{name: "no VAPID", header: map[string]string{"Authorization": ""}, status: [4]int{401, 401, 403, 401}, apple: "BadJwtToken"},
		{name: "WebPush scheme", header: map[string]string{"Authorization": "WebPush eyJ"}, status: [4]int{403, 401, 403, 401}, apple: "BadAuthorizationHeader"},
		{name: "no key", header: map[string]string{"Authorization": "vapid t=eyJ, k=BA"}, status: [4]int{403, 401, 403, 401}, apple: "BadVapidPublicKey"},
		{name: "aud", claims: set("aud", "https://fcm.googleapis.com"), status: [4]int{403, 401, 403, 401}, mozilla: "109", apple: "BadJwtToken"},
		{name: "exp past", claims: set("exp", time.Now().Unix()-1), status: [4]int{403, 401, 403, 401}},
		{name: "exp in 25 hours", claims: set("exp", time.Now().Unix()+25*3600), status: [4]int{403, 401, 403, 401}},
		{name: "no exp", claims: func(c jwt.MapClaims) { delete(c, "exp") }, status: [4]int{403, 401, 403, 401}},
		{name: "sub", claims: set("sub", "ops"), status: [4]int{403, 401, 403, 401}},
		{name: "sub twice mailto", claims: set("sub", "mailto:mailto:ops@example.com"), status: [4]int{403, 401, 403, 401}},
		{name: "sub at localhost", claims: set("sub", "mailto:ops@localhost"), status: [4]int{201, 201, 403, 201}, apple: "BadJwtToken"},
		{name: "sub with a space", claims: set("sub", "mailto: ops@example.com"), status: [4]int{201, 201, 403, 201}, apple: "BadJwtToken"},
		{name: "sub in angle brackets", claims: set("sub", "mailto:<ops@example.com>"), status: [4]int{201, 201, 403, 201}, apple: "BadJwtToken"},
		{name: "sub at a name of no one's", claims: set("sub", "https://push.invalid"), status: [4]int{201, 201, 403, 201}, apple: "BadJwtToken"},
		{name: "no TTL", header: map[string]string{"TTL": ""}, status: [4]int{400, 400, 400, 400}, mozilla: "111", apple: "BadTtl"},
		{name: "TTL", header: map[string]string{"TTL": "1.5"}, status: [4]int{400, 400, 400, 400}, mozilla: "111"},
		{name: "TTL below 0", header: map[string]string{"TTL": "-1"}, status: [4]int{400, 400, 400, 400}, mozilla: "114"},
		{name: "urgency", header: map[string]string{"Urgency": "HIGH"}, status: [4]int{400, 400, 400, 400}, apple: "BadUrgency"},
		{name: "topic too long", header: map[string]string{"Topic": strings.Repeat("t", 33)}, status: [4]int{400, 400, 400, 400}, mozilla: "113", apple: "BadWebPushTopic"},
		{name: "topic that no base64 is as long as", header: map[string]string{"Topic": "collie-update"}, status: [4]int{201, 201, 400, 201}, apple: "BadWebPushTopic"},
		{name: "topic characters", header: map[string]string{"Topic": "a.b"}, status: [4]int{400, 400, 400, 400}, mozilla: "113"},
		{name: "encoding", header: map[string]string{"Content-Encoding": "aesgcm"}, status: [4]int{400, 400, 400, 400}},
		{name: "plain text", raw: []byte(strings.Repeat("hello", 40)), status: [4]int{400, 400, 400, 400}},
		{name: "short", raw: []byte("hello"), status: [4]int{400, 400, 400, 400}},
		{name: "too large", raw: make([]byte, 4097), status: [4]int{413, 413, 413, 413}, mozilla: "104"},
		{name: "other auth secret", body: &sealed{plain: push, auth: make([]byte, 16)}, status: [4]int{400, 400, 400, 400}},
		{name: "record size below the record", body: &sealed{plain: push, recordSize: 40}, status: [4]int{400, 400, 400, 400}},
		{name: "delimiter of a record before the last", body: &sealed{plain: append(push[:len(push)-1:len(push)-1], 1)}, status: [4]int{400, 400, 400, 400}},
		{name: "no delimiter", body: &sealed{plain: make([]byte, 20)}, status: [4]int{400, 400, 400, 400}},
	} {
		for i, svc := range []Service{Chrome, Mozilla, Apple, Windows} {
			d := pick(t, s, "demo", svc, k.fate)
			body := k.raw
			if body == nil {
				b := sealed{plain: push}
				if k.body != nil {
					b = *k.body
				}
				body = b.bytes(t, s, d)
			}
			h := map[string]string{"Authorization": vapid(t, a, s.URL(svc), k.claims), "TTL": "60", "Content-Encoding": "aes128gcm"}
			for name, v := range k.header {
				h[name] = v
			}
			switch h["Authorization"] {
			case "other":
				h["Authorization"] = vapid(t, other, s.URL(svc), nil)
			case "former":
				h["Authorization"] = formerVAPID(t, a, s.URL(svc))
			}
			url := endpointOf(s, d)
			if k.path != "" {
				url = s.URL(svc) + vendors[svc].prefix + k.path
			}
			res := do(t, c, post(t, url, h, body))
			if res.status != k.status[i] {
				t.Errorf("%s, %s: %d %s %s, want %d", k.name, svc, res.status, res.body, res.header.Get("X-Simulator-Detail"), k.status[i])
				continue
			}
			if res.status == 201 && !strings.HasPrefix(res.header.Get("Location"), s.URL(svc)+"/") {
				t.Errorf("%s, %s: Location %q", k.name, svc, res.header.Get("Location"))
			}
			if svc == Mozilla && k.mozilla != "" && !strings.Contains(res.body, `"errno":`+k.mozilla+`,`) {
				t.Errorf("%s: errno in %s, want %s", k.name, res.body, k.mozilla)
			}
			if svc == Apple && k.apple != "" && res.body != `{"reason":"`+k.apple+`"}` {
				t.Errorf("%s: %s, want %s", k.name, res.body, k.apple)
			}
		}
	}
}

// A VAPID header is good at its own origin only, also after another service has verified it.
func TestVAPIDIsForOneOrigin(t *testing.T) {
	s := start(t, nil)
	a, c := app(t, s, "demo"), client(t, s)
	header := vapid(t, a, s.URL(Mozilla), nil)
	for svc, want := range map[Service]int{Mozilla: 201, Chrome: 403} {
		d := pick(t, s, "demo", svc, Healthy)
		for range 2 {
			h := map[string]string{"Authorization": header, "TTL": "60", "Content-Encoding": "aes128gcm"}
			if res := do(t, c, post(t, endpointOf(s, d), h, sealed{plain: push}.bytes(t, s, d))); res.status != want {
				t.Errorf("%s: %d, want %d", svc, res.status, want)
			}
		}
	}
}

// webpush-go, which knows nothing of the simulator, sends to a subscription of each vendor.
func TestWebPushGoIsAccepted(t *testing.T) {
	s := start(t, nil)
	a, c := app(t, s, "demo"), client(t, s)
	for _, svc := range []Service{Chrome, Mozilla, Apple, Windows} {
		d := pick(t, s, "demo", svc, Healthy)
		res, err := webpush.SendNotification(push[:len(push)-1], &webpush.Subscription{
			Endpoint: endpointOf(s, d),
			Keys: webpush.Keys{
				P256dh: s.world.subscriptionKey(d.target).p256dh, Auth: base64.RawURLEncoding.EncodeToString(s.world.authSecret(d.target)),
			},
		}, &webpush.Options{
			HTTPClient: c, Subscriber: strings.TrimPrefix(a.Subject, "mailto:"), TTL: 60, Topic: "to", Urgency: webpush.UrgencyHigh,
			VAPIDPublicKey: a.VAPIDPublic, VAPIDPrivateKey: a.VAPIDPrivate,
		})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Errorf("%s: %d %s %s", svc, res.StatusCode, b, res.Header.Get("X-Simulator-Detail"))
		}
	}
	if sum := summary(t, s); sum.Distinct != 1 || sum.Repeats != 3 || sum.ByStatus["webpush"]["201"] != 4 || sum.ByOrigin["windows"]["201"] != 1 {
		t.Errorf("%+v", sum)
	}
}
