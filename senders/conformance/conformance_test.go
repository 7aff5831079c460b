// Package conformance puts every platform through the same suite against the simulator, which is strict, judges by its
// own reading of the providers' documents, and knows the fate of each device.
package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/fcm"
	"github.com/belfry/belfry/senders/webpush"
	"github.com/belfry/belfry/simulator"
)

// world is a simulator with its devices, and a provider for each platform, running.
type world struct {
	*simulator.Simulator
	platforms map[string]senders.Provider
	devices   map[string][]*pb.Delivery
}

func start(t *testing.T, population simulator.Population, piped bool) *world {
	t.Helper()
	sim, err := simulator.Start(simulator.Options{Population: population})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Simulator: sim, devices: map[string][]*pb.Delivery{}}
	w.platforms = w.providers(t, piped)
	w.load(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for name, p := range w.platforms {
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) providers(t *testing.T, piped bool) map[string]senders.Provider {
	t.Helper()
	app, err := w.App("demo")
	if err != nil {
		t.Fatal(err)
	}
	account, err := w.ServiceAccount(app)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, s := range []simulator.Service{simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows} {
		hosts = append(hosts, w.Address(s))
	}
	log := slog.New(slog.DiscardHandler)
	a, err1 := apns.New(map[string]apns.Config{"demo": {
		Key: []byte(app.APNsKey), KeyID: app.KeyID, TeamID: app.TeamID, Topic: app.Topic,
		URL: w.URL(simulator.APNs), SandboxURL: w.URL(simulator.APNsSandbox), CA: w.CA(), Wire: piped,
	}}, log)
	f, err2 := fcm.New(map[string]fcm.Config{"demo": {ServiceAccount: account, URL: w.URL(simulator.FCM), CA: w.CA(), Wire: piped}}, log)
	p, err3 := webpush.New(map[string]webpush.Config{"demo": {
		PublicKey: app.VAPIDPublic, PrivateKey: app.VAPIDPrivate, Subject: app.Subject, AllowHosts: hosts, CA: w.CA(), Wire: piped,
	}}, log)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return map[string]senders.Provider{"apns": a, "fcm": f, "webpush": p}
}

// line is a device as the API takes it.
type line struct {
	ID, Platform, Locale string
	Attributes           map[string]any
	APNs                 *struct{ Token, Environment string }
	FCM                  *struct{ Token, FID string }
	WebPush              *struct{ Endpoint, P256dh, Auth string }
}

func (w *world) load(t *testing.T) {
	t.Helper()
	var all bytes.Buffer
	if err := w.WriteDevices(&all, "demo"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(&all); lines.Scan(); {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		id := schemas.DeliveryID("demo", "c1", l.ID, 0)
		w.devices[l.Platform] = append(w.devices[l.Platform], &pb.Delivery{
			Id: id[:], App: "demo", Run: "c1", Device: l.ID, Locale: l.Locale, Class: pb.Class_CLASS_BULK, Target: l.target(),
			Variables: map[string]string{"attributes.first_name": l.Attributes["first_name"].(string)},
			ExpiresAt: time.Now().Add(time.Hour).UnixMilli(),
		})
	}
}

func (l line) target() *pb.Target {
	switch {
	case l.APNs != nil:
		token, _ := hex.DecodeString(l.APNs.Token)
		environment := pb.Environment_ENVIRONMENT_PRODUCTION
		if l.APNs.Environment == "sandbox" {
			environment = pb.Environment_ENVIRONMENT_SANDBOX
		}
		return &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token, Environment: environment}}}
	case l.FCM != nil:
		return &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: l.FCM.Token, Fid: l.FCM.FID}}}
	default:
		key, _ := base64.RawURLEncoding.DecodeString(l.WebPush.P256dh)
		auth, _ := base64.RawURLEncoding.DecodeString(l.WebPush.Auth)
		return &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: l.WebPush.Endpoint, P256Dh: key, Auth: auth}}}
	}
}

func compile(t *testing.T, m *pb.Message) *message.Compiled {
	t.Helper()
	c, err := message.Compile(m, message.Campaign)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// campaign uses all that a message can say on every platform.
func campaign(t *testing.T) *message.Compiled {
	badge := uint32(3)
	return compile(t, &pb.Message{
		Content: &pb.Content{
			Title: "Hi {{ attributes.first_name }}", Body: "a < b & \"c\" \u2028 \x01", Image: "https://img.example/x.png", Link: "https://example.com/?a=1&b=2",
		},
		Localized: map[string]*pb.Content{"fr": {Title: "Salut {{ attributes.first_name }}", Body: "ça"}},
		Data:      map[string]string{"k": "v", "empty": ""},
		Apns: &pb.ApnsOptions{
			Sound: "default", Badge: &badge, Category: "c", ThreadId: "t", MutableContent: true, ContentAvailable: true,
			InterruptionLevel: "active", RelevanceScore: 0.5, Raw: []byte(`{"aps":{"target-content-id":"x"}}`),
		},
		Fcm: &pb.FcmOptions{
			Priority: "high", CollapseKey: "ck", ChannelId: "ch", Sound: "s", Icon: "i", Color: "#0a84ff", ClickAction: "OPEN", AnalyticsLabel: "l",
			Raw: []byte(`{"android":{"notification":{"title":"raw"}}}`),
		},
		Webpush:  &pb.WebPushOptions{Urgency: "high", Icon: "https://i.example/i", Badge: "https://i.example/b", RequireInteraction: true, Raw: []byte(`{"vibrate":[1]}`)},
		Collapse: "news",
	})
}

// send makes the whole way of one delivery, from message to verdict. Where there is no token yet it asks again, as a lane
// does.
func send(ctx context.Context, t *testing.T, p senders.Provider, d *pb.Delivery, m *message.Compiled) senders.Verdict {
	t.Helper()
	r, err := exchangetest.Encode(p, d, m, time.Now())
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	for {
		v, res := exchangetest.Ask(ctx, p, r)
		if !errors.Is(res.Err, senders.ErrNoToken) {
			return v
		}
		select {
		case <-ctx.Done():
			t.Fatal("there never was a token")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestEveryDeviceByItsFate(t *testing.T) { exchangetest.BothWays(t, everyDeviceByItsFate) }

func everyDeviceByItsFate(t *testing.T, piped bool) {
	w := start(t, simulator.Population{Seed: 1, Devices: 600, Gone: 0.1, Misplaced: 0.05}, piped)
	fates, err := w.Devices("demo")
	if err != nil {
		t.Fatal(err)
	}
	m := campaign(t)
	for name, p := range w.platforms {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			accepted, gone, refused := 0, 0, 0
			slots := make(chan struct{}, 32)
			var wg sync.WaitGroup
			for _, d := range w.devices[name] {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					v := send(t.Context(), t, p, d, m)
					received := w.Received(simulator.ID(d.GetId()))
					mu.Lock()
					defer mu.Unlock()
					switch {
					case v.Outcome == pb.Outcome_OUTCOME_ACCEPTED && received == 1:
						accepted++
					case v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED && v.Of == senders.OfDevice && received == 0:
						gone++
					case received == 0 && v.Next != senders.Stop && v.Of&(senders.OfMessage|senders.OfService) == 0:
						refused++
					default:
						t.Errorf("%s: received %d times, verdict %+v", d.GetDevice(), received, v)
					}
				})
			}
			wg.Wait()
			want := fates[name]
			if accepted != want[simulator.Healthy] || gone != want[simulator.Gone] || refused != want[simulator.Misplaced] {
				t.Errorf("accepted %d, gone %d, refused %d; want %v", accepted, gone, refused, want)
			}
		})
	}
}

// TestFaults has each sickness of a provider end in the verdict that lets a lane do right by it, and its end in success.
func TestFaults(t *testing.T) { exchangetest.BothWays(t, faults) }

func faults(t *testing.T, piped bool) {
	tests := []struct {
		fault simulator.Fault
		want  func(senders.Verdict) bool
	}{
		{simulator.Fault{Kind: simulator.Status, Status: 429, RetryAfter: 7}, func(v senders.Verdict) bool { return v.Next == senders.Later && v.After >= 7*time.Second }},
		{simulator.Fault{Kind: simulator.Status, Status: 503}, func(v senders.Verdict) bool { return v.Next == senders.Later && v.Slow && !v.Unknown }},
		{simulator.Fault{Kind: simulator.Status, Status: 500}, func(v senders.Verdict) bool { return v.Next == senders.Later && !v.Unknown }},
		{simulator.Fault{Kind: simulator.Reset}, func(v senders.Verdict) bool { return v.Next == senders.Later && v.Unknown }},
		{simulator.Fault{Kind: simulator.Cut}, func(v senders.Verdict) bool { return v.Next == senders.Later && v.Unknown }},
		{simulator.Fault{Kind: simulator.GoAway}, func(v senders.Verdict) bool { return v.Outcome == pb.Outcome_OUTCOME_ACCEPTED }},
		{simulator.Fault{Kind: simulator.Stall}, func(v senders.Verdict) bool { return v.Next == senders.Later && v.Unknown && v.Code == "timeout" }},
		{simulator.Fault{Kind: simulator.Credentials}, func(v senders.Verdict) bool {
			return v.Next == senders.Stop || v.Next == senders.Refresh || v.Next == senders.Later
		}},
	}
	w := start(t, simulator.Population{Seed: 2, Devices: 30}, piped)
	m := campaign(t)
	for name, p := range w.platforms {
		d := w.devices[name][0]
		if v := send(t.Context(), t, p, d, m); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
			t.Fatalf("%s: well, and yet %+v", name, v)
		}
		for _, tt := range tests {
			t.Run(name+"/"+strings.TrimSuffix(string(tt.fault.Kind), "status"), func(t *testing.T) {
				if err := w.SetFault("sick", tt.fault); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				v := send(ctx, t, p, d, m)
				cancel()
				if !tt.want(v) {
					t.Errorf("%+v became %+v", tt.fault, v)
				}
				if f := w.Faults()["sick"]; f.Struck == 0 {
					t.Error("the fault never struck")
				}
				w.ClearFaults()
				ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if v := send(ctx, t, p, d, m); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
					t.Errorf("well again, and yet %+v", v)
				}
			})
		}
	}
}
