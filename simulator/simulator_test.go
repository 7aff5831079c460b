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
	"sync"
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

// pick is the first device of an app on a service with a fate. An FCM one is known by its token.
func pick(t testing.TB, s *Simulator, app string, svc Service, fate Fate) device {
	t.Helper()
	return pickWhere(t, s, app, func(d device) bool { return d.service == svc && d.fate == fate && !d.fid })
}

func pickWhere(t testing.TB, s *Simulator, name string, is func(device) bool) device {
	t.Helper()
	a := app(t, s, name)
	for i := range s.world.Devices {
		if d := s.world.device(a.index, uint32(i)); is(d) {
			return d
		}
	}
	t.Fatalf("%s has no such device", name)
	return device{}
}

// fakeClock is a providers' clock in a test's hand.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
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
	res := askToken(t, s, c, assertion(t, s, a))
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(res.body), &granted); err != nil || res.status != 200 {
		t.Fatalf("token endpoint: %d %s", res.status, res.body)
	}
	return granted.AccessToken
}

// assertion is what a service account asks for an access token with.
func assertion(t testing.TB, s *Simulator, a *App) string {
	t.Helper()
	now := time.Now().Unix()
	return sign(t, jwt.SigningMethodRS256, a.serviceKey(), a.serviceKeyID, jwt.MapClaims{
		"iss": a.ClientEmail, "aud": s.URL(OAuth) + "/token", "iat": now, "exp": now + 3600,
		"scope": "https://www.googleapis.com/auth/firebase.messaging",
	})
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

// Faults may be in force from the start, and a wrong one is told with its name before anything listens.
func TestFaultsFromTheStart(t *testing.T) {
	s := start(t, func(o *Options) { o.Faults = map[string]Fault{"ill": {Kind: Status, Status: 503, Origin: "mozilla"}} })
	newPusher(t, s, "demo", Mozilla).want(1, 503)
	if _, err := Start(Options{Faults: map[string]Fault{"good": {Kind: Stall}, "odd": {Kind: "sulk"}}}); err == nil || !strings.Contains(err.Error(), "odd") {
		t.Errorf("got %v", err)
	}
	if _, err := ReadFaults(strings.NewReader(`{"f": {"kind": "stall", "colour": "red"}}`)); err == nil || !strings.Contains(err.Error(), "colour") {
		t.Errorf("a field that there is not: %v", err)
	}
}

// ntfy is there, after control and in the configuration, when devices are.
func TestNtfyIsThereWhenDevicesAre(t *testing.T) {
	without, with := start(t, nil), start(t, withNtfy)
	if _, there := without.Addresses()["ntfy"]; there || strings.Contains(without.Config("x"), without.URL(Ntfy)[len("https://"):]) {
		t.Error("ntfy listens for nobody")
	}
	address, there := with.Addresses()["ntfy"]
	if !there || !strings.Contains(with.Config("x"), address) {
		t.Errorf("%v", with.Addresses())
	}
	if controlPort != 8 || Ntfy.port() != 9 {
		t.Errorf("control is port %d and ntfy %d", controlPort, Ntfy.port())
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
