package simulator

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// door is a way to the providers: their sockets, or none.
type door func(t *testing.T, r *http.Request, body []byte, svc Service) response

// bothDoors runs a test through HTTP/2 and through Ask.
func bothDoors(t *testing.T, s *Simulator, test func(t *testing.T, ask door)) {
	t.Run("HTTP", func(t *testing.T) {
		clients := map[Service]*http.Client{}
		test(t, func(t *testing.T, r *http.Request, _ []byte, svc Service) response {
			if clients[svc] == nil {
				clients[svc] = client(t, s)
			}
			return do(t, clients[svc], r)
		})
	})
	t.Run("Ask", func(t *testing.T) {
		test(t, func(t *testing.T, r *http.Request, body []byte, svc Service) response {
			a := s.Ask(t.Context(), coreRequest(r, body, svc))
			return response{status: a.Status, header: a.Header(), body: string(a.Body)}
		})
	})
}

func coreRequest(r *http.Request, body []byte, svc Service) *Request {
	return &Request{Service: svc, Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header, Body: body, From: "127.0.0.1"}
}

// sender makes a right request to any device of an app's.
type sender struct {
	t    testing.TB
	sim  *Simulator
	auth map[key]string // by app and service
}

func newSender(t testing.TB, s *Simulator) *sender {
	return &sender{t: t, sim: s, auth: map[key]string{}}
}

func (s *sender) push(d device, n int) (*http.Request, []byte) {
	who := key{d.app, uint32(d.service)}
	p := &pusher{t: s.t, sim: s.sim, app: s.sim.world.apps[d.app], device: d, auth: s.auth[who]}
	if p.auth == "" {
		p.authorize()
		s.auth[who] = p.auth
	}
	return p.request(n)
}

// goods is how each service says that it has taken a message.
var goods = map[Service]int{APNs: 200, APNsSandbox: 200, FCM: 200, Chrome: 201, Mozilla: 201, Apple: 201, Windows: 201, Ntfy: 200}

// healthy are the first devices of an app on a service that are well.
func healthy(t testing.TB, s *Simulator, svc Service, n int) (all []device) {
	t.Helper()
	for i := range s.world.Devices {
		if d := s.world.device(0, uint32(i)); d.service == svc && d.fate == Healthy && len(all) < n {
			all = append(all, d)
		}
	}
	if len(all) < n {
		t.Fatalf("only %d devices are well at %s", len(all), svc)
	}
	return all
}

func withNtfy(o *Options) { o.Population.Mix = Mix{APNs: 4, FCM: 4, WebPush: 4, Ntfy: 1} }

// A fault that strikes a share of the targets strikes just those, always, and says which they are.
func TestFaultOfAShare(t *testing.T) {
	s := start(t, withNtfy)
	send := newSender(t, s)
	for _, c := range []struct {
		name  string
		fault Fault
		want  map[Service]string // status, and what the answer holds
	}{
		{"gone", Fault{Kind: Unregister}, map[Service]string{
			APNs: "410 Unregistered", FCM: "404 UNREGISTERED", Chrome: "410 unsubscribed", Mozilla: `410 "errno":106`, Apple: "410 Unregistered", Windows: "410",
			Ntfy: `507 "code":50701`,
		}},
		{"mismatched", Fault{Kind: Mismatch}, map[Service]string{
			APNs: "400 DeviceTokenNotForTopic", FCM: "403 SENDER_ID_MISMATCH", Chrome: "403 do not correspond", Mozilla: `401 "errno":109`,
			Apple: "400 VapidPkHashMismatch", Windows: "403", Ntfy: "200",
		}},
		{"mismatched environment", Fault{Kind: Mismatch, Reason: "BadDeviceToken"}, map[Service]string{APNs: "400 BadDeviceToken", FCM: "403 SENDER_ID_MISMATCH"}},
		{"renamed", Fault{Kind: Rename}, map[Service]string{APNs: "200", FCM: "404 UNREGISTERED", Mozilla: "201"}},
		{"limited", Fault{Kind: Status, Status: 429}, map[Service]string{
			APNs: "429 TooManyRequests", FCM: `429 "subject": "device"`, Chrome: "429", Mozilla: "429", Apple: "429 TooManyRequests", Windows: "429 channelthrottled",
			Ntfy: `429 "code":42901`,
		}},
		{"throttled", Fault{Kind: Quota, PerSecond: 1e-9, Each: EachTarget}, map[Service]string{FCM: `429 "subject": "device"`, Windows: "406 channelthrottled"}},
		{"limited for an hour", Fault{Kind: Status, Status: 429, RetryAfter: 3600}, map[Service]string{Mozilla: "429 Retry-After 3600", FCM: "429 Retry-After 3600"}},
		{"refusing", Fault{Kind: Status, Status: 500}, map[Service]string{APNs: "500 InternalServerError", FCM: "500 INTERNAL", Mozilla: "500", Ntfy: `500 "code":50001`}},
		{"no room", Fault{Kind: Status, Status: 507}, map[Service]string{Ntfy: "507 without previously active subscriber", Chrome: "507"}},
		{"slow", Fault{Kind: Latency, Delay: 1}, map[Service]string{APNs: "200", FCM: "200", Mozilla: "201", Ntfy: "200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothDoors(t, s, func(t *testing.T, ask door) {
				c.fault.Share, c.fault.From, c.fault.Seed = 0.4, 0.2, 11
				setFault(t, s, "some", c.fault)
				struck := int64(0)
				for svc, want := range c.want {
					hit := 0
					for n, d := range healthy(t, s, svc, 12) {
						times := 1
						if c.fault.Kind == Quota {
							times = 2 // the first one is its burst
						}
						var res response
						for range times {
							r, body := send.push(d, n)
							res = ask(t, r, body, svc)
						}
						said := fmt.Sprintf("%d Retry-After %s %s %s", res.status, res.header.Get("Retry-After"), res.header.Get("X-Wns-Status"), res.body)
						aimed := slices.Contains(s.faults.at(d), "some")
						status, word, _ := strings.Cut(want, " ")
						if !aimed {
							status, word = fmt.Sprint(goods[svc]), ""
						} else {
							hit++
							struck++
						}
						if !strings.HasPrefix(said, status) || !strings.Contains(said, word) {
							t.Errorf("%s, aimed at: %v: %s; want %s", svc, aimed, said, want)
						}
					}
					if hit == 0 || hit == 12 {
						t.Errorf("%s: %d of 12 are aimed at", svc, hit)
					}
				}
				if got := s.Faults()["some"].Struck; got != struck {
					t.Errorf("it struck %d times, want %d", got, struck)
				}
				s.ClearFaults()
				for svc := range c.want {
					for n, d := range healthy(t, s, svc, 12) {
						r, body := send.push(d, n)
						if res := ask(t, r, body, svc); res.status != goods[svc] {
							t.Fatalf("%s, lifted: %d %s", svc, res.status, res.body)
						}
					}
				}
			})
		})
	}
}

// Shares of one seed lie side by side; another seed strikes others.
func TestSharesLieSideBySide(t *testing.T) {
	s := start(t, nil)
	for name, f := range map[string]Fault{
		"a": {Kind: Unregister, Share: 0.3}, "b": {Kind: Mismatch, From: 0.3, Share: 0.2}, "c": {Kind: Rename, From: 0.5, Share: 0.5},
		"elsewhere": {Kind: Status, Status: 503, Share: 0.3, Seed: 1},
	} {
		setFault(t, s, name, f)
	}
	counts, both := map[string]int{}, 0
	for i := range s.world.Devices {
		names := s.faults.at(s.world.device(0, uint32(i)))
		own := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "elsewhere" })
		if len(own) != 1 {
			t.Fatalf("device %d has %v", i, names)
		}
		counts[own[0]]++
		if names[0] == "a" && len(names) == 2 {
			both++
		}
	}
	for name, want := range map[string]int{"a": 600, "b": 400, "c": 1000} {
		if got := counts[name]; got < want*8/10 || got > want*12/10 {
			t.Errorf("%s strikes %d of 2000, want about %d", name, got, want)
		}
	}
	if both < 140 || both > 220 {
		t.Errorf("two seeds have %d targets in common, want about 180", both)
	}
}

// A target can be named by its device id and by all that it is reached by.
func TestFaultOfListedTargets(t *testing.T) {
	s := start(t, withNtfy)
	send := newSender(t, s)
	setFault(t, s, "installed", Fault{Kind: Rename, Share: 1})
	s.ClearFaults()
	for svc := range goods {
		two := healthy(t, s, svc, 2)
		names := []string{string(appendDeviceID(nil, two[0].index))}
		switch svc.platform() {
		case "apns":
			names = append(names, s.world.apnsToken(two[0].target))
		case "fcm":
			names = append(names, s.world.fcmToken(two[0].target), s.world.fid(two[0].target))
		default:
			names = append(names, endpointOf(s, two[0]))
		}
		for _, name := range names {
			setFault(t, s, "one", Fault{Kind: Status, Status: 500, Targets: []string{name}})
			for i, want := range []int{500, goods[svc]} {
				r, body := send.push(two[i], i)
				if a := s.Ask(t.Context(), coreRequest(r, body, svc)); a.Status != want {
					t.Errorf("%s by %s: device %d: %d, want %d", svc, name, i, a.Status, want)
				}
			}
			if struck(t, s, "one") != 1 {
				t.Errorf("%s by %s: it struck %d times", svc, name, struck(t, s, "one"))
			}
		}
	}
	if err := s.SetFault("x", Fault{Kind: Stall, Targets: []string{"d-002000"}}); err == nil || !strings.Contains(err.Error(), "d-002000") {
		t.Errorf("a device that is not there: %v", err)
	}
	if s.Faults()["x"].Kind != "" {
		t.Error("it is in force")
	}
}

// What belongs to another bundle id, or has registered by its other name, is reached under that.
func TestMismatchedIsSomebodyElses(t *testing.T) {
	s := start(t, nil)
	send, a := newSender(t, s), app(t, s, "demo")
	setFault(t, s, "all", Fault{Kind: Mismatch, Share: 1})
	r, body := send.push(healthy(t, s, APNs, 1)[0], 1)
	r.Header.Set("Apns-Topic", a.BetaTopic)
	if got := s.Ask(t.Context(), coreRequest(r, body, APNs)); got.Status != 200 {
		t.Errorf("under its own bundle id: %d %s", got.Status, got.Body)
	}
	d := healthy(t, s, Apple, 1)[0]
	r, body = send.push(d, 1)
	r.Header.Set("Authorization", formerVAPID(t, a, s.URL(Apple)))
	if got := s.Ask(t.Context(), coreRequest(r, body, Apple)); got.Status != 201 {
		t.Errorf("with the key that it was made with: %d %s", got.Status, got.Body)
	}
	setFault(t, s, "all", Fault{Kind: Rename, Share: 1})
	d = pick(t, s, "demo", FCM, Healthy)
	d.fid = true
	r, body = send.push(d, 1)
	if got := s.Ask(t.Context(), coreRequest(r, body, FCM)); got.Status != 200 {
		t.Errorf("by its installation id: %d %s", got.Status, got.Body)
	}
}

// Credentials are looked at before a device is: a wrong one hides that it is gone, as at the real ones.
func TestRulesKeepTheirOrder(t *testing.T) {
	s := start(t, nil)
	setFault(t, s, "all", Fault{Kind: Unregister, Share: 1})
	r, body := newSender(t, s).push(healthy(t, s, Mozilla, 1)[0], 1)
	r.Header.Set("Authorization", vapid(t, app(t, s, "other"), s.URL(Mozilla), nil))
	if got := s.Ask(t.Context(), coreRequest(r, body, Mozilla)); got.Status != 401 {
		t.Errorf("%d %s", got.Status, got.Body)
	}
}

// A target that answers late or never holds up nobody else, in a bubble's time as in real time.
func TestSlowTargets(t *testing.T) {
	s := start(t, nil)
	send := newSender(t, s)
	two := healthy(t, s, Mozilla, 2)
	synctest.Test(t, func(t *testing.T) {
		id := func(d device) []string { return []string{string(appendDeviceID(nil, d.index))} }
		setFault(t, s, "late", Fault{Kind: Latency, Delay: Duration(time.Hour), Targets: id(two[0])})
		setFault(t, s, "never", Fault{Kind: Stall, Targets: id(two[1])})
		defer s.ClearFaults()
		begin := time.Now()
		to := func(d device) *Request {
			r, body := send.push(d, 1)
			return coreRequest(r, body, Mozilla)
		}
		never := to(two[1])
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		gone := make(chan Answer)
		go func() { gone <- s.Ask(ctx, never) }()
		if a := s.Ask(t.Context(), to(healthy(t, s, Mozilla, 3)[2])); a.Status != 201 || !time.Now().Equal(begin) {
			t.Errorf("one that is well: %d after %v", a.Status, time.Since(begin))
		}
		// The header of an hour ago is good for twelve.
		if a := s.Ask(t.Context(), to(two[0])); a.Status != 201 || time.Since(begin) != time.Hour {
			t.Errorf("the late one: %d after %v", a.Status, time.Since(begin))
		}
		if a := <-gone; a.Status != 0 || a.Accepted || time.Since(begin) != 24*time.Hour {
			t.Errorf("the one that never answers: %d after %v", a.Status, time.Since(begin))
		}
	})
}

// What a fault does to the connection, Ask says; the message may have been taken all the same.
func TestAskTellsHowItEnds(t *testing.T) {
	s := start(t, nil)
	r, body := newSender(t, s).push(healthy(t, s, APNs, 1)[0], 1)
	for _, c := range []struct {
		fault Fault
		want  Answer
	}{
		{Fault{Kind: Reset, Code: "REFUSED_STREAM"}, Answer{Ending: Reset, Code: 7}},
		{Fault{Kind: Cut, AfterAccepting: true}, Answer{Ending: Cut, Accepted: true, ID: deliveryID(1), Named: true}},
		{Fault{Kind: GoAway}, Answer{Status: 200, Ending: GoAway, Accepted: true, ID: deliveryID(1), Named: true}},
		{Fault{Kind: Status, Status: 503, AfterAccepting: true}, Answer{Status: 503, Accepted: true, ID: deliveryID(1), Named: true}},
	} {
		setFault(t, s, "f", c.fault)
		got := s.Ask(t.Context(), coreRequest(r, body, APNs))
		if got.Status != c.want.Status || got.Ending != c.want.Ending || got.Code != c.want.Code ||
			got.Accepted != c.want.Accepted || got.ID != c.want.ID || got.Named != c.want.Named {
			t.Errorf("%s: %+v, want %+v", c.fault.Kind, got, c.want)
		}
	}
}

// Without sockets there is nothing for a black hole to take.
func TestProvidersWithoutSockets(t *testing.T) {
	p, err := NewProviders(Options{Population: Population{Seed: 7, Devices: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetFault("f", Fault{Kind: BlackHole}); err == nil || !strings.Contains(err.Error(), "use stall") {
		t.Errorf("a black hole: %v", err)
	}
	if got := p.URL(Mozilla); got != "https://updates.push.services.mozilla.com" {
		t.Errorf("Mozilla is at %s", got)
	}
}

// ntfy looks at nothing but whether somebody has subscribed to the topic.
func TestNtfy(t *testing.T) {
	s := start(t, withNtfy)
	bothDoors(t, s, func(t *testing.T, ask door) {
		d, stale := healthy(t, s, Ntfy, 1)[0], pick(t, s, "demo", Ntfy, Gone)
		send := func(to device, body []byte) response {
			h := map[string]string{"Content-Encoding": "aes128gcm", "Topic": "a.b", "TTL": "never"}
			return ask(t, post(t, endpointOf(s, to), h, body), body, Ntfy)
		}
		before := summary(t, s)
		if res := send(d, sealed{plain: push}.bytes(t, s, d)); res.status != 200 || !strings.Contains(res.body, `"event":"message"`) {
			t.Errorf("without VAPID, a TTL or a Topic that is right: %d %s", res.status, res.body)
		}
		if res := send(d, make([]byte, 500)); res.status != 400 || res.header.Get("X-Simulator-Detail") == "" {
			t.Errorf("what nobody can read: %d %s", res.status, res.body)
		}
		// 4,096 bytes is what is left of it, and no browser can read that.
		if res := send(d, sealed{plain: append(make([]byte, 5000), 2), recordSize: 8192}.bytes(t, s, d)); res.status != 200 {
			t.Errorf("one that is too large: %d %s", res.status, res.body)
		}
		if res := send(stale, sealed{plain: push}.bytes(t, s, stale)); res.status != 507 || !strings.Contains(res.body, `"code":50701,"http":507`) {
			t.Errorf("a topic without a subscriber: %d %s", res.status, res.body)
		}
		after := summary(t, s)
		if after.Distinct+after.Repeats != before.Distinct+before.Repeats+1 || after.Unnamed != before.Unnamed+1 {
			t.Errorf("%+v, then %+v", before, after)
		}
		if m := pickWhere(t, s, "demo", func(d device) bool { return d.service == Ntfy }); m.fate == Misplaced {
			t.Error("a device at ntfy counts as misplaced")
		}
	})
}
