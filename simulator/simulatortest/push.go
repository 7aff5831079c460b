package simulatortest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/belfry/belfry/simulator"
)

// Push is a right request to a device, with a delivery's id: for tests that need no sender of their own. A web push has no
// body, as one that only wakes the browser, and so no id: encrypting costs ten times all else.
func (w *World) Push(t testing.TB, d simulator.Device, id simulator.ID) *simulator.Request {
	t.Helper()
	r := &simulator.Request{Service: d.Service, Method: http.MethodPost, Header: http.Header{"Authorization": {w.Authorization(t)}}}
	switch {
	case d.Service <= simulator.APNsSandbox:
		r.Path = "/3/device/" + d.Token
		r.Header["Apns-Topic"], r.Header["Apns-Push-Type"], r.Header["Apns-Id"] = []string{w.App.Topic}, []string{"alert"}, []string{id.String()}
		r.Body = []byte(`{"aps":{"alert":"x"}}`)
	case d.Service == simulator.FCM:
		r.Path = "/v1/projects/" + w.App.Project + "/messages:send"
		r.Header["Content-Type"] = []string{"application/json"}
		name, target := "token", d.Token
		if d.FID != "" {
			name, target = "fid", d.FID
		}
		r.Body = fmt.Appendf(nil, `{"message":{"%s":"%s","data":{"belfry_id":"%s"}}}`, name, target, id)
	default:
		r.Path = strings.TrimPrefix(d.Endpoint, w.URL(d.Service))
		r.Header["Ttl"] = []string{"60"}
	}
	return r
}

// Ask sends a Push and returns what becomes of it, after as long as that takes.
func (w *World) Ask(ctx context.Context, t testing.TB, d simulator.Device, id simulator.ID) simulator.Answer {
	t.Helper()
	return w.Providers.Ask(ctx, w.Push(t, d, id))
}

// fresh is how long an authorization is used: APNs' are good for an hour, as FCM's are, and must not change within 20
// minutes.
const fresh = 45 * time.Minute

// authorizer makes the app's Authorization, and another when that is old.
type authorizer struct {
	mu    sync.Mutex
	value string
	made  time.Time
}

// Authorization is the header that the service takes from the app now.
func (w *World) Authorization(t testing.TB) string {
	t.Helper()
	w.auth.mu.Lock()
	defer w.auth.mu.Unlock()
	if now := time.Now(); w.auth.value == "" || now.Sub(w.auth.made) > fresh {
		value, err := Authorize(w.Providers, w.App, w.service, now)
		if err != nil {
			t.Fatalf("simulatortest: authorization: %v", err)
		}
		w.auth.value, w.auth.made = value, now
	}
	return w.auth.value
}

// Authorize makes the header that a service takes from an app from now on, for an hour at least.
func Authorize(p *simulator.Providers, app *simulator.App, svc simulator.Service, now time.Time) (string, error) {
	switch {
	case svc <= simulator.APNsSandbox:
		key, err := readPEM(app.APNsKey)
		if err != nil {
			return "", err
		}
		tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": app.TeamID, "iat": now.Unix()})
		tok.Header["kid"] = app.KeyID
		text, err := tok.SignedString(key)
		return "bearer " + text, err
	case svc == simulator.FCM:
		return accessToken(p, app, now)
	}
	scalar, err := base64.RawURLEncoding.DecodeString(app.VAPIDPrivate)
	if err != nil {
		return "", err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return "", err
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"aud": p.URL(svc), "exp": now.Add(12 * time.Hour).Unix(), "sub": app.Subject,
	}).SignedString(key)
	return "vapid t=" + text + ", k=" + app.VAPIDPublic, err
}

// accessToken asks the token server for one, as a service account does.
func accessToken(p *simulator.Providers, app *simulator.App, now time.Time) (string, error) {
	b, err := p.ServiceAccount(app)
	if err != nil {
		return "", err
	}
	var account struct {
		Key   string `json:"private_key"`
		KeyID string `json:"private_key_id"`
		URI   string `json:"token_uri"`
	}
	if err := json.Unmarshal(b, &account); err != nil {
		return "", err
	}
	key, err := readPEM(account.Key)
	if err != nil {
		return "", err
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": app.ClientEmail, "aud": account.URI, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scope": "https://www.googleapis.com/auth/firebase.messaging",
	})
	tok.Header["kid"] = account.KeyID
	assertion, err := tok.SignedString(key)
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	a := p.Ask(context.Background(), &simulator.Request{
		Service: simulator.OAuth, Method: http.MethodPost, Path: "/token", Body: []byte(form.Encode()),
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	})
	var granted struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(a.Body, &granted); err != nil || a.Status != http.StatusOK {
		return "", fmt.Errorf("the token server says %d %s", a.Status, a.Body)
	}
	return "Bearer " + granted.Token, nil
}

func readPEM(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("the key is not PEM")
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}
