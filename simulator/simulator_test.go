package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// start runs a simulator for a test, with two apps, each of 2000 devices.
func start(t testing.TB, change func(*Options)) *Simulator {
	t.Helper()
	o := Options{Population: Population{Seed: 7, Apps: []string{"demo", "other"}, Devices: 2000, Gone: 0.1, Misplaced: 0.1}}
	if change != nil {
		change(&o)
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client trusts the simulator and speaks HTTP/2 on connections of its own.
func client(t testing.TB, s *Simulator) *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CA()) {
		t.Fatal("the CA is not PEM")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func app(t testing.TB, s *Simulator, name string) *App {
	t.Helper()
	a, err := s.App(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pick is the first device of an app on a service with a fate.
func pick(t testing.TB, s *Simulator, app string, svc Service, fate Fate) device {
	t.Helper()
	a, err := s.App(app)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.world.Devices {
		if d := s.world.device(a.index, uint32(i)); d.service == svc && d.fate == fate && !d.fid {
			return d
		}
	}
	t.Fatalf("no device of %s on %s with fate %d", app, svc, fate)
	return device{}
}

type response struct {
	status int
	header http.Header
	body   string
	proto  string
}

func do(t testing.TB, c *http.Client, r *http.Request) response {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(b), res.Proto}
}

func post(t testing.TB, url string, header map[string]string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if v != "" {
			r.Header.Set(k, v)
		}
	}
	return r
}

func summary(t testing.TB, s *Simulator) Summary {
	t.Helper()
	sum, err := s.Summary()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func sign(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, claims)
	if kid != "" {
		tok.Header["kid"] = kid
	}
	text, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func accessToken(t testing.TB, s *Simulator, c *http.Client, a *App) string {
	t.Helper()
	now := time.Now().Unix()
	assertion := sign(t, jwt.SigningMethodRS256, a.serviceKey(), a.serviceKeyID, jwt.MapClaims{
		"iss": a.ClientEmail, "aud": s.URL(OAuth) + "/token", "iat": now, "exp": now + 3600,
		"scope": "https://www.googleapis.com/auth/firebase.messaging",
	})
	res := askToken(t, s, c, assertion)
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(res.body), &granted); err != nil || res.status != 200 {
		t.Fatalf("token endpoint: %d %s", res.status, res.body)
	}
	return granted.AccessToken
}

func askToken(t testing.TB, s *Simulator, c *http.Client, assertion string) response {
	form := url.Values{"grant_type": {jwtBearer}, "assertion": {assertion}}
	return do(t, c, post(t, s.URL(OAuth)+"/token",
		map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(form.Encode())))
}

// A simulator that was started again is the same to its clients.
func TestSameSeedSameWorld(t *testing.T) {
	s := start(t, nil)
	d, key := pick(t, s, "demo", APNs, Healthy), app(t, s, "demo").APNsKey
	again := start(t, nil)
	if got := pick(t, again, "demo", APNs, Healthy); got != d || app(t, again, "demo").APNsKey != key {
		t.Error("devices or keys changed")
	}
	if !app(t, again, "other").serviceKey().Equal(app(t, s, "other").serviceKey()) {
		t.Error("service account changed")
	}
	// The first one's CA is trusted by who met the second, for its key is the same.
	c := client(t, s)
	if res := do(t, c, post(t, again.URL(APNs)+"/3/device/x", nil, nil)); res.status != 403 {
		t.Errorf("status %d", res.status)
	}
	if other := start(t, func(o *Options) { o.Population.Seed = 8 }); app(t, other, "demo").APNsKey == key {
		t.Error("another seed has the same key")
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"app":     {Population: Population{Apps: []string{"Not ok"}}},
		"twice":   {Population: Population{Apps: []string{"a", "a"}}},
		"devices": {Population: Population{Devices: -1}},
		"shares":  {Population: Population{Gone: 0.7, Misplaced: 0.7}},
		"listen":  {Listen: "nowhere"},
		"port":    {Port: 65530},
		"streams": {Streams: Streams{FCM: -1}},
	} {
		if s, err := Start(o); err == nil {
			t.Errorf("%s: accepted", name)
			s.Close()
		}
	}
}

func TestPortsInARow(t *testing.T) {
	first := start(t, nil)
	// A port that was free a moment ago serves to show that a taken one is refused with a word on what to do.
	_, port, _ := strings.Cut(first.Address(APNs), ":")
	o := Options{}
	if err := json.Unmarshal([]byte(port), &o.Port); err != nil {
		t.Fatal(err)
	}
	if o.Port > 65535-int(services) {
		t.Skip("no room above the port the system chose")
	}
	if _, err := Start(o); err == nil || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("got %v", err)
	}
}

// Each service says in its SETTINGS how many streams it allows; APNs allows a new connection one.
func TestStreams(t *testing.T) {
	s := start(t, func(o *Options) { o.Streams.FCM = 77 })
	for svc, want := range map[Service]uint32{APNs: 1, FCM: 77, Mozilla: 250} {
		if got := dialRaw(t, s, svc).streams(); got != want {
			t.Errorf("%s: %d streams, want %d", svc, got, want)
		}
	}
}
