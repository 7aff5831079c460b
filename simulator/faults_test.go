package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/http2"
)

func deliveryID(n int) ID { return ID{0: 1, 6: 0x80, 8: 0x80, 14: byte(n >> 8), 15: byte(n)} }

// push sends one message for an app through a service and returns status and answer.
func (p *pusher) push(ctx context.Context, n int) (*http.Response, error) {
	r, _ := p.request(n)
	res, err := p.client.Do(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	return res, nil
}

// pusher is a correct sender to one healthy device, with a connection of its own.
type pusher struct {
	t      testing.TB
	sim    *Simulator
	client *http.Client
	app    *App
	device device
	auth   string
}

func newPusher(t testing.TB, s *Simulator, name string, svc Service) *pusher {
	p := &pusher{t: t, sim: s, client: client(t, s), app: app(t, s, name), device: pick(t, s, name, svc, Healthy)}
	p.authorize()
	return p
}

func (p *pusher) authorize() {
	switch svc := p.device.service; svc.platform() {
	case "apns":
		p.auth = "bearer " + apnsJWT(p.t, p.app, time.Now(), nil)
	case "fcm":
		p.auth = "Bearer " + accessToken(p.t, p.sim, client(p.t, p.sim), p.app)
	default:
		p.auth = vapid(p.t, p.app, p.sim.URL(svc), nil)
	}
}

func (p *pusher) want(n, status int) *http.Response {
	p.t.Helper()
	res, err := p.push(context.Background(), n)
	if err != nil {
		p.t.Fatal(err)
	}
	if res.StatusCode != status {
		p.t.Fatalf("status %d, want %d", res.StatusCode, status)
	}
	return res
}

func setFault(t testing.TB, s *Simulator, name string, f Fault) {
	t.Helper()
	if err := s.SetFault(name, f); err != nil {
		t.Fatal(err)
	}
}

func struck(t testing.TB, s *Simulator, name string) int64 {
	t.Helper()
	return s.Faults()[name].Struck
}

// Every status that a fault asks for is worded as its provider does.
func TestStatusFault(t *testing.T) {
	s := start(t, nil)
	good := map[Service]int{APNs: 200, FCM: 200, Chrome: 201, Mozilla: 201, Apple: 201, Windows: 201}
	for _, c := range []struct {
		svc   Service
		fault Fault
		want  int
	}{
		{APNs, Fault{Kind: Status, Status: 503, RetryAfter: 7}, 503},
		{APNs, Fault{Kind: Credentials}, 403},
		{APNs, Fault{Kind: Status, Status: 429, Reason: "TooManyProviderTokenUpdates"}, 429},
		{FCM, Fault{Kind: Status, Status: 429, RetryAfter: 7}, 429},
		{FCM, Fault{Kind: Credentials}, 403},
		{Chrome, Fault{Kind: Status, Status: 500}, 500},
		{Mozilla, Fault{Kind: Credentials}, 401},
		{Apple, Fault{Kind: Credentials}, 403},
		{Windows, Fault{Kind: Quota, PerSecond: 1e-9, RetryAfter: 7}, 406},
	} {
		name := c.svc.String() + " " + string(c.fault.Kind) + " " + strconv.Itoa(c.want)
		p := newPusher(t, s, "demo", c.svc)
		c.fault.Origin = c.svc.String()
		setFault(t, s, "f", c.fault)
		if c.fault.Kind == Quota {
			p.want(0, good[c.svc]) // the burst
		}
		res := p.want(1, c.want)
		if got := res.Header.Get("Retry-After"); c.fault.RetryAfter != 0 && got != "7" {
			t.Errorf("%s: Retry-After %q", name, got)
		}
		if struck(t, s, "f") == 0 {
			t.Errorf("%s: it did not strike", name)
		}
		s.ClearFaults()
		p.want(2, good[c.svc])
	}
}

// A fault for one app, platform or origin leaves the others alone.
func TestFaultScope(t *testing.T) {
	s := start(t, nil)
	demo, other := newPusher(t, s, "demo", Mozilla), newPusher(t, s, "other", Mozilla)
	chrome, apns := newPusher(t, s, "demo", Chrome), newPusher(t, s, "demo", APNs)
	setFault(t, s, "f", Fault{Kind: Status, Status: 503, Origin: "mozilla", App: "demo"})
	demo.want(1, 503)
	other.want(2, 201)
	chrome.want(3, 201)
	setFault(t, s, "f", Fault{Kind: Status, Status: 500, Platform: "webpush"})
	chrome.want(4, 500)
	apns.want(5, 200)
	sum := summary(t, s)
	if sum.ByApp["demo"]["503"] != 1 || sum.ByApp["other"]["201"] != 1 || sum.ByOrigin["chrome"]["500"] != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestRate(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", APNs)
	setFault(t, s, "half", Fault{Kind: Status, Status: 500, Rate: 0.5})
	for n := range 100 {
		if _, err := p.push(context.Background(), n); err != nil {
			t.Fatal(err)
		}
	}
	sum := summary(t, s).ByStatus["apns"]
	if sum["200"] == 0 || sum["500"] == 0 || sum["500"] != struck(t, s, "half") {
		t.Errorf("%v, struck %d", sum, struck(t, s, "half"))
	}
}

// waitStruck waits until a fault has struck.
func waitStruck(t testing.TB, s *Simulator, name string) {
	t.Helper()
	select {
	case <-s.FaultStruck(name):
	case <-time.After(10 * time.Second):
		t.Fatalf("fault %s does not strike", name)
	}
}

// A stall holds requests until it is lifted: by hand, or by its own time.
func TestStallIsLifted(t *testing.T) {
	s := start(t, nil)
	for name, lift := range map[string]func(){"by hand": func() { s.ClearFault("f") }, "by time": func() {}} {
		p := newPusher(t, s, "demo", Mozilla)
		f := Fault{Kind: Stall, Origin: "mozilla"}
		if name == "by time" {
			f.For = Duration(50 * time.Millisecond)
		}
		setFault(t, s, "f", f)
		done := make(chan int)
		go func() {
			res, err := p.push(context.Background(), 1)
			if err != nil {
				t.Error(err)
				close(done)
				return
			}
			done <- res.StatusCode
		}()
		if name == "by hand" {
			waitStruck(t, s, "f")
			newPusher(t, s, "demo", Chrome).want(2, 201)
		}
		lift()
		if got := <-done; got != 201 {
			t.Errorf("%s: %d", name, got)
		}
		if len(s.Faults()) != 0 {
			t.Errorf("%s: still in force", name)
		}
	}
}

// A sender that gives a stalled request up was not received, unless the stall came after accepting: then it was.
func TestStallAndGiveUp(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", APNs)
	p.want(0, 200)
	for i, after := range []bool{false, true} {
		n := i + 1
		setFault(t, s, "f", Fault{Kind: Stall, Platform: "apns", AfterAccepting: after})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := p.push(ctx, n)
			done <- err
		}()
		waitStruck(t, s, "f")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// The provider has noticed when it counts a request without an answer.
		for limit := time.Now().Add(10 * time.Second); summary(t, s).ByStatus["apns"]["0"] < int64(n); {
			if time.Now().After(limit) {
				t.Fatal("the provider does not notice that its client left")
			}
			time.Sleep(time.Millisecond)
		}
		s.ClearFaults()
	}
	if s.Received(deliveryID(1)) != 0 || s.Received(deliveryID(2)) != 1 {
		t.Error("receipts are wrong")
	}
	p.want(3, 200)
}

func TestLatency(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", FCM)
	setFault(t, s, "f", Fault{Kind: Latency, Platform: "fcm", Delay: Duration(30 * time.Millisecond), Jitter: Duration(time.Millisecond)})
	from := time.Now()
	p.want(1, 200)
	if d := time.Since(from); d < 30*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
}

func TestResetCutAndGoAway(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", APNs)
	p.want(0, 200)
	setFault(t, s, "f", Fault{Kind: Reset, Platform: "apns"})
	var stream http2.StreamError
	if _, err := p.push(context.Background(), 1); err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") && !errors.As(err, &stream) {
		t.Errorf("reset: %v", err)
	}
	setFault(t, s, "f", Fault{Kind: Cut, Platform: "apns", AfterAccepting: true})
	if _, err := p.push(context.Background(), 2); err == nil {
		t.Error("cut: an answer")
	}
	if s.Received(deliveryID(2)) == 0 {
		t.Error("the cut message was not taken")
	}
	setFault(t, s, "f", Fault{Kind: GoAway, Platform: "apns"})
	p.want(3, 200)
	setFault(t, s, "g", Fault{Kind: Status, Status: 503, Reason: "Shutdown"})
	p.want(5, 503) // with f's GOAWAY
	s.ClearFaults()
	p.want(4, 200) // on a new connection
	if s.Received(deliveryID(1)) != 0 {
		t.Error("a reset message was taken")
	}
}

// After a GOAWAY the next request goes out on another connection.
func TestGoAwayEndsTheConnection(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", APNs)
	var reused []bool
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = append(reused, i.Reused) }}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	for n, f := range []Fault{{Kind: Latency, Delay: 1}, {Kind: GoAway}, {Kind: Latency, Delay: 1}} {
		setFault(t, s, "f", f)
		if res, err := p.push(ctx, n); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
	}
	// A request may set out on the old connection before the GOAWAY is read: then it is sent again.
	if len(reused) < 3 || reused[0] || !reused[1] || reused[len(reused)-1] {
		t.Errorf("connections reused: %v", reused)
	}
	if n := summary(t, s); n.Distinct != 3 || n.Repeats != 0 {
		t.Errorf("%+v", n)
	}
}

// A black hole takes connections, old and new; when it is lifted what fell in comes out.
func TestBlackHole(t *testing.T) {
	s := start(t, nil)
	old, fresh, bystander := newPusher(t, s, "demo", Mozilla), newPusher(t, s, "demo", Mozilla), newPusher(t, s, "demo", Chrome)
	old.want(0, 201)
	for n, p := range []*pusher{old, fresh} {
		setFault(t, s, "hole", Fault{Kind: BlackHole, Origin: "mozilla"})
		done := make(chan error)
		go func() {
			res, err := p.push(context.Background(), 1+n)
			if err == nil && res.StatusCode != 201 {
				err = errors.New(res.Status)
			}
			done <- err
		}()
		waitStruck(t, s, "hole")
		bystander.want(9, 201)
		if s.Received(deliveryID(1+n)) != 0 {
			t.Error("something came out of the hole")
		}
		s.ClearFault("hole")
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDrip(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", Apple)
	setFault(t, s, "drip", Fault{Kind: Drip, Origin: "apple", PerSecond: 100_000})
	p.want(1, 201)
	if struck(t, s, "drip") == 0 {
		t.Error("it did not strike")
	}
}

// Close ends what waits in faults, and its goroutines.
func TestCloseUnderFaults(t *testing.T) {
	s := start(t, nil)
	stalled, holed := newPusher(t, s, "demo", APNs), newPusher(t, s, "demo", Mozilla)
	setFault(t, s, "stall", Fault{Kind: Stall, Platform: "apns"})
	setFault(t, s, "hole", Fault{Kind: BlackHole, Platform: "webpush"})
	var clients sync.WaitGroup
	for _, p := range []*pusher{stalled, holed} {
		clients.Go(func() { _, _ = p.push(context.Background(), 1) })
	}
	waitStruck(t, s, "stall")
	waitStruck(t, s, "hole")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	clients.Wait()
	if s.SetFault("late", Fault{Kind: Stall}) == nil {
		t.Error("a fault after Close")
	}
}

// The token server is apart from FCM: each can be sick alone.
func TestOAuthFault(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", FCM)
	setFault(t, s, "f", Fault{Kind: Status, Status: 401, Platform: "oauth", App: "demo"})
	if res := askToken(t, s, client(t, s), "junk"); res.status != 400 {
		t.Errorf("another's: %d", res.status)
	}
	claims := sign(t, jwt.SigningMethodRS256, p.app.serviceKey(), p.app.serviceKeyID, map[string]any{"iss": p.app.ClientEmail})
	if res := askToken(t, s, client(t, s), claims); res.status != 401 || !strings.Contains(res.body, "invalid_client") {
		t.Errorf("%d %s", res.status, res.body)
	}
	p.want(1, 200)
}

func TestFaultsRefused(t *testing.T) {
	s := start(t, nil)
	for want, f := range map[string]Fault{
		"kind":                     {Kind: "sulk"},
		"platform":                 {Kind: Stall, Platform: "sms"},
		"origin":                   {Kind: Stall, Origin: "opera"},
		"app":                      {Kind: Stall, App: "nobody"},
		"rate":                     {Kind: Stall, Rate: 2},
		"negative":                 {Kind: Stall, For: -1},
		"needs a delay":            {Kind: Latency},
		"end at 1":                 {Kind: Stall, Share: 0.7, From: 0.4},
		"give a share":             {Kind: Stall, Seed: 3},
		"no targets":               {Kind: Stall, Platform: "oauth", Share: 0.5},
		"needs a share or targets": {Kind: Unregister},
		"a mismatch at APNs":       {Kind: Mismatch, Share: 1, Reason: "BadTopic"},
		"does not apply":           {Kind: Rename, Share: 1, AfterAccepting: true},
		"and not both":             {Kind: Quota, PerSecond: 1, PerMinute: 1},
		"each":                     {Kind: Quota, PerSecond: 1, Each: "browser"},
		"counts nothing":           {Kind: Stall, Window: true},
		"no burst":                 {Kind: Quota, PerMinute: 1, Window: true, Burst: 2},
		"give an app":              {Kind: Disruptive},
		"Chrome's word":            {Kind: Disruptive, App: "demo", Origin: "mozilla"},
		"as long as Chrome says":   {Kind: Disruptive, App: "demo", For: 1},
		"status":                   {Kind: Status},
		"per_second":               {Kind: Quota},
		"takes whole connections":  {Kind: BlackHole, App: "demo"},
		"takes all connections":    {Kind: Drip, PerSecond: 1, Rate: 0.5},
		"before a request is read": {Kind: BlackHole, AfterAccepting: true},
		"a reset has one":          {Kind: Reset, Code: "SULK"},
		"nothing was accepted":     {Kind: Reset, Code: "REFUSED_STREAM", AfterAccepting: true},
	} {
		if err := s.SetFault("f", f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if s.SetFault("", Fault{Kind: Stall}) == nil {
		t.Error("no name: accepted")
	}
	if len(s.Faults()) != 0 {
		t.Error("a wrong fault is in force")
	}
}

// Faults change, receipts are read and requests run all at once.
func TestFaultsChangeUnderTraffic(t *testing.T) {
	s := start(t, nil)
	const each = 60
	services := []Service{APNs, FCM, Mozilla, Windows}
	var senders sync.WaitGroup
	for i, svc := range services {
		p := newPusher(t, s, "demo", svc)
		senders.Go(func() {
			for n := range each {
				_, _ = p.push(context.Background(), i*each+n) // a cut is one of the answers
			}
		})
	}
	stop := make(chan struct{})
	var changer sync.WaitGroup
	changer.Go(func() {
		faults := []Fault{{Kind: Latency, Delay: 1}, {Kind: Status, Status: 503}, {Kind: Cut, Rate: 0.1}, {Kind: GoAway, Rate: 0.1}, {Kind: BlackHole}, {Kind: Stall}}
		for n := 0; ; n++ {
			select {
			case <-stop:
				s.ClearFaults()
				return
			case <-time.After(time.Millisecond):
				if err := s.SetFault("f", faults[n%len(faults)]); err != nil {
					t.Error(err)
				}
				if _, err := json.Marshal(summary(t, s)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	senders.Wait()
	close(stop)
	changer.Wait()
	for _, svc := range services {
		newPusher(t, s, "demo", svc).want(1000, map[bool]int{true: 201, false: 200}[svc >= Chrome])
	}
}
