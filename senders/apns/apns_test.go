package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/sideshow/apns2/payload"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/wire"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const id = "0f1e2d3c-4b5a-8978-8796-a5b4c3d2e1f0"

func delivery() *pb.Delivery {
	return &pb.Delivery{
		Id:        []byte{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x89, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0},
		App:       "demo",
		Run:       "c1",
		Device:    "d1",
		Target:    &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: []byte{0xab, 0xcd, 0x01}}}},
		ExpiresAt: now.Add(time.Hour).UnixMilli(),
		Variables: map[string]string{"attributes.name": "Ada"},
	}
}

func compile(t testing.TB, m *pb.Message) *message.Compiled {
	t.Helper()
	c, err := message.Compile(m, message.Campaign)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) (pemBytes []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), key
}

func config(t testing.TB, url string, ca []byte) Config {
	key, _ := newKey(t)
	return Config{Key: key, KeyID: "KEY1234567", TeamID: "TEAM123456", Topic: "com.example.demo", URL: url, CA: ca}
}

func provider(t testing.TB, c Config) *Provider {
	t.Helper()
	p, err := New(map[string]Config{"demo": c}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// send makes the whole way of one delivery, from message to verdict.
func send(t testing.TB, p *Provider, d *pb.Delivery, m *message.Compiled) senders.Verdict {
	t.Helper()
	r, err := exchangetest.Encode(p, d, m, now)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := exchangetest.Ask(t.Context(), p, r)
	return v
}

// TestConformance has one case for each row of docs/providers.md, "APNs", answered by a server over HTTP/2.
func TestConformance(t *testing.T) { exchangetest.BothWays(t, conformance) }

func conformance(t *testing.T, piped bool) {
	const (
		gone     = 1_700_000_000_123
		device   = senders.OfDevice
		eitherOf = senders.OfDevice | senders.OfCredential
		target   = senders.OfDevice | senders.OfService
	)
	drop := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: device}
	wrong := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfMessage}
	doubtful := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: eitherOf}
	stop := senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	unregistered := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: device, InvalidAt: gone}
	misplaced := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: eitherOf}
	ill := senders.Verdict{Next: senders.Later, Of: target}
	slow := senders.Verdict{Next: senders.Later, Of: target, Slow: true}
	limited := senders.Verdict{Next: senders.Later, Of: target, Slow: true, Limited: true}
	later := senders.Verdict{Next: senders.Later, Of: device}
	again := senders.Verdict{Next: senders.Again}

	type owner int
	const (
		configured owner = iota // the topic is the configuration's
		ofDevice                // the device's own
		ofMessage               // the message's own
	)
	tests := []struct {
		status int
		reason string
		owner  owner
		want   senders.Verdict
	}{
		{200, "", configured, senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}},
		{400, "BadDeviceToken", configured, misplaced},
		{400, "DeviceTokenNotForTopic", configured, doubtful},
		{400, "DeviceTokenNotForTopic", ofDevice, drop},
		{400, "DeviceTokenNotForTopic", ofMessage, wrong},
		{400, "TopicDisallowed", configured, stop},
		{400, "TopicDisallowed", ofDevice, drop},
		{400, "TopicDisallowed", ofMessage, wrong},
		{400, "BadTopic", configured, stop},
		{400, "BadTopic", ofDevice, drop},
		{400, "BadTopic", ofMessage, wrong},
		{400, "MissingTopic", configured, stop},
		{400, "BadCollapseId", configured, wrong},
		{400, "BadExpirationDate", configured, wrong},
		{400, "BadMessageId", configured, wrong},
		{400, "BadPriority", configured, wrong},
		{400, "InvalidPushType", configured, wrong},
		{400, "DuplicateHeaders", configured, wrong},
		{400, "PayloadEmpty", configured, wrong},
		{400, "MissingDeviceToken", configured, drop},
		{400, "IdleTimeout", configured, again},
		{403, "ExpiredProviderToken", configured, senders.Verdict{Next: senders.Refresh, Of: senders.OfCredential}},
		{403, "InvalidProviderToken", configured, stop},
		{403, "MissingProviderToken", configured, stop},
		{403, "BadCertificate", configured, stop},
		{403, "BadCertificateEnvironment", configured, stop},
		{403, "BadEnvironmentKeyIdInToken", configured, stop},
		{403, "UnrelatedKeyIdInToken", configured, again},
		{403, "Forbidden", configured, doubtful},
		{404, "BadPath", configured, stop},
		{405, "MethodNotAllowed", configured, stop},
		{410, "Unregistered", configured, unregistered},
		{410, "ExpiredToken", configured, unregistered},
		{413, "PayloadTooLarge", configured, drop},
		{429, "TooManyProviderTokenUpdates", configured, ill},
		{429, "TooManyRequests", configured, later},
		{500, "InternalServerError", configured, ill},
		{503, "ServiceUnavailable", configured, slow},
		{503, "Shutdown", configured, again},
		// What the table does not know, or did not come from Apple.
		{400, "SomethingNew", configured, drop},
		{403, "", configured, stop},
		{410, "", configured, drop},
		{429, "", configured, limited},
		{502, "", configured, ill},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, tt.reason, tt.owner), func(t *testing.T) {
			s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "9")
				w.WriteHeader(tt.status)
				switch {
				case tt.status == 200:
				case tt.reason == "":
					_, _ = w.Write([]byte("<html>a gateway</html>"))
				case tt.status == 410:
					_, _ = fmt.Fprintf(w, `{"reason":%q,"timestamp":%d}`, tt.reason, gone)
				default:
					_, _ = fmt.Fprintf(w, `{"reason":%q}`, tt.reason)
				}
			})
			c := config(t, s.URL, s.CA)
			c.Wire = piped
			p := provider(t, c)
			message, d := &pb.Message{Content: &pb.Content{Title: "t"}}, delivery()
			switch tt.owner {
			case ofDevice:
				d.Target.GetApns().Topic = "com.example.demo.dev"
			case ofMessage:
				message.Apns = &pb.ApnsOptions{Topic: "com.other.app"}
			}
			want := tt.want
			if want.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
				want.After, want.Code = 9*time.Second, tt.reason
				if want.Code == "" {
					want.Code = fmt.Sprint(tt.status)
				}
			}
			if diff := cmp.Diff(want, send(t, p, d, compile(t, message))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Apple's time of a 410 decides whether a device that registered since is kept; one in the future would end it whatever it did.
func TestGoneIsNeverInTheFuture(t *testing.T) {
	p := provider(t, config(t, "", nil))
	request := &senders.Request{Destination: production1, Delivery: delivery()}
	a := &wire.Result{Status: 410, Body: []byte(`{"reason":"Unregistered","timestamp":99999999999999}`)}
	if v := p.Classify(request, a); v.InvalidAt > time.Now().UnixMilli() {
		t.Errorf("gone at %d", v.InvalidAt)
	}
}

func FuzzClassify(f *testing.F) {
	p := provider(f, config(f, "", nil))
	request := &senders.Request{Destination: production1, Delivery: delivery()}
	f.Add(400, `{"reason":"BadDeviceToken"}`)
	f.Add(410, `{"reason":"Unregistered","timestamp":-5}`)
	f.Add(503, `{"reason":12}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		v := p.Classify(request, &wire.Result{Status: status, Body: []byte(body)})
		if v.Outcome == pb.Outcome_OUTCOME_ACCEPTED && status != 200 {
			t.Errorf("%d was taken for a success", status)
		}
		if v.Next == senders.End && v.Outcome == pb.Outcome_OUTCOME_UNSPECIFIED || len(v.Code) > 64 {
			t.Errorf("%d %q: %+v", status, body, v)
		}
	})
}

func TestWhatGoesOnTheWire(t *testing.T) {
	type seen struct {
		header http.Header
		path   string
		raw    []byte
	}
	var got seen
	s := exchangetest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{header: r.Header, path: r.URL.Path, raw: b}
	})
	c := config(t, s.URL, s.CA)
	pemKey, key := newKey(t)
	c.Key = pemKey
	p := provider(t, c)
	m := compile(t, &pb.Message{
		Content: &pb.Content{Title: "Hi {{ attributes.name }}", Body: "a < b & c", Image: "https://img.example/x.png", Link: "https://example.com/?a=1&b=2"},
		Data:    map[string]string{"k": "v"},
	})
	if v := send(t, p, delivery(), m); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
		t.Fatalf("got %+v", v)
	}
	want := map[string]string{
		"Apns-Id": id, "Apns-Collapse-Id": id, "Apns-Priority": "10", "Apns-Push-Type": "alert", "Apns-Topic": "com.example.demo",
		"Apns-Expiration": fmt.Sprint(now.Add(time.Hour).Unix()),
	}
	for name, value := range want {
		if v := got.header[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, want %q", name, v, value)
		}
	}
	if got.path != "/3/device/abcd01" {
		t.Errorf("path %s", got.path)
	}
	if !bytes.Contains(got.raw, []byte("a < b & c")) {
		t.Errorf("the payload grew on its way: %s", got.raw)
	}
	var body map[string]any
	if err := json.Unmarshal(got.raw, &body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{
		"aps": map[string]any{"alert": map[string]any{"title": "Hi Ada", "body": "a < b & c"}, "mutable-content": 1.0},
		"k":   "v", "image": "https://img.example/x.png", "link": "https://example.com/?a=1&b=2",
	}, body); diff != "" {
		t.Error(diff)
	}
	bearer := strings.TrimPrefix(got.header.Get("Authorization"), "bearer ")
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(bearer, claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
	if err != nil || token.Header["kid"] != "KEY1234567" || claims["iss"] != "TEAM123456" {
		t.Errorf("token header %v, claims %v, error %v", token.Header, claims, err)
	}
}

// TestPayload compares with what apns2's own builder makes of the same options.
func TestPayload(t *testing.T) {
	everything := payload.NewPayload().AlertTitle("t").AlertBody("b").Badge(0).Sound("s").Category("c").ThreadID("th").
		MutableContent().ContentAvailable().InterruptionLevel(payload.InterruptionLevelTimeSensitive).RelevanceScore(0.25).
		Custom("k", "v")
	tests := []struct {
		name string
		m    *pb.Message
		want any
	}{
		{
			"every option",
			&pb.Message{
				Content: &pb.Content{Title: "t", Body: "b"}, Data: map[string]string{"k": "v"},
				Apns: &pb.ApnsOptions{
					Sound: "s", Badge: proto.Uint32(0), Category: "c", ThreadId: "th", MutableContent: true, ContentAvailable: true,
					InterruptionLevel: "time-sensitive", RelevanceScore: 0.25,
				},
			},
			everything,
		},
		{
			"background keeps the text for the other platforms",
			&pb.Message{Content: &pb.Content{Title: "t"}, Data: map[string]string{"k": "v"}, Apns: &pb.ApnsOptions{PushType: "background"}},
			payload.NewPayload().ContentAvailable().Custom("k", "v"),
		},
		{
			"raw at the top and within aps",
			&pb.Message{Content: &pb.Content{Title: "t"}, Apns: &pb.ApnsOptions{Raw: []byte(`{"x":{"y":1},"aps":{"sound":{"critical":1,"name":"s","volume":1},"url-args":["a"]}}`)}},
			payload.NewPayload().AlertTitle("t").SoundName("s").SoundVolume(1).URLArgs([]string{"a"}).Custom("x", map[string]any{"y": 1}),
		},
		{
			"data wins over the link",
			&pb.Message{Content: &pb.Content{Title: "t", Link: "app://a"}, Data: map[string]string{"link": "app://b"}},
			payload.NewPayload().AlertTitle("t").Custom("link", "app://b"),
		},
		{
			"device management is all raw",
			&pb.Message{Content: &pb.Content{Title: "t"}, Apns: &pb.ApnsOptions{PushType: "mdm", Raw: []byte(`{"mdm":"magic"}`)}},
			map[string]string{"mdm": "magic"},
		},
	}
	p := provider(t, config(t, "", nil))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := exchangetest.Encode(p, delivery(), compile(t, tt.m), now)
			if err != nil {
				t.Fatal(err)
			}
			reference, err := json.Marshal(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(r.Body, &got), json.Unmarshal(reference, &want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	p := provider(t, config(t, "", nil))
	sandboxed := delivery()
	sandboxed.Target.GetApns().Environment = pb.Environment_ENVIRONMENT_SANDBOX
	sandboxed.Target.GetApns().Topic = "com.example.beta"
	tests := []struct {
		name                            string
		d                               *pb.Delivery
		m                               *pb.Message
		topic, priority, collapse, host string
	}{
		{"default", delivery(), &pb.Message{}, "com.example.demo", "10", id, "api.push.apple.com"},
		{"background", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "background"}}, "com.example.demo", "5", id, "api.push.apple.com"},
		{"the device's bundle, in the sandbox", sandboxed, &pb.Message{Collapse: "news"}, "com.example.beta", "10", "news", "api.sandbox.push.apple.com"},
		{"voip", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "voip"}}, "com.example.demo.voip", "10", id, "api.push.apple.com"},
		{"push to talk", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "pushtotalk"}}, "com.example.demo.voip-ptt", "10", id, "api.push.apple.com"},
		{"complication", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "complication"}}, "com.example.demo.complication", "10", id, "api.push.apple.com"},
		{"location", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "location"}}, "com.example.demo.location-query", "10", id, "api.push.apple.com"},
		{"fileprovider", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "fileprovider"}}, "com.example.demo.pushkit.fileprovider", "10", id, "api.push.apple.com"},
		{"live activity", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "liveactivity"}}, "com.example.demo.push-type.liveactivity", "10", id, "api.push.apple.com"},
		{"widgets", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "widgets"}}, "com.example.demo.push-type.widgets", "10", id, "api.push.apple.com"},
		{"controls", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "controls"}}, "com.example.demo.push-type.controls", "10", id, "api.push.apple.com"},
		{"mdm, by its own topic", delivery(), &pb.Message{Apns: &pb.ApnsOptions{PushType: "mdm", Topic: "com.apple.mgmt.x", Priority: 1}}, "com.apple.mgmt.x", "1", id, "api.push.apple.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := exchangetest.Encode(p, tt.d, compile(t, tt.m), now)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{r.Field(headerTopic), r.Field(headerPriority), r.Field(headerCollapseID), r.Origin + r.Path}
			want := []string{tt.topic, tt.priority, tt.collapse, "https://" + tt.host + "/3/device/abcd01"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	p := provider(t, config(t, "", nil))
	title := func(n int) *pb.Content { return &pb.Content{Title: strings.Repeat("x", n)} }
	// {"aps":{"alert":{"title":""}}} is 30 bytes.
	tests := []struct {
		name string
		d    func(*pb.Delivery)
		m    *pb.Message
		code string
	}{
		{"just fits", nil, &pb.Message{Content: title(4096 - 30)}, ""},
		{"a byte too many", nil, &pb.Message{Content: title(4096 - 30 + 1)}, "payload-too-large"},
		{"fits as VoIP", nil, &pb.Message{Content: title(5120 - 30), Apns: &pb.ApnsOptions{PushType: "voip"}}, ""},
		{"too large as VoIP", nil, &pb.Message{Content: title(5120 - 30 + 1), Apns: &pb.ApnsOptions{PushType: "voip"}}, "payload-too-large"},
		{"angle brackets are one byte", nil, &pb.Message{Content: &pb.Content{Title: strings.Repeat("<", 4096-30)}}, ""},
		{"another platform's target", func(d *pb.Delivery) { d.Target = &pb.Target{} }, &pb.Message{}, "bad-target"},
		{"over", func(d *pb.Delivery) { d.ExpiresAt = now.UnixMilli() }, &pb.Message{}, "expired"},
		{"a header split", nil, &pb.Message{Collapse: "a\r\nx: y"}, "bad-message"},
		{"unknown push type", nil, &pb.Message{Apns: &pb.ApnsOptions{PushType: "shout"}}, "bad-message"},
		{"raw that is no object", nil, &pb.Message{Apns: &pb.ApnsOptions{Raw: []byte("[]")}}, "bad-message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := delivery()
			if tt.d != nil {
				tt.d(d)
			}
			_, err := exchangetest.Encode(p, d, compile(t, tt.m), now)
			var refusal *senders.Refusal
			switch errors.As(err, &refusal); {
			case tt.code == "" && err != nil, tt.code != "" && refusal == nil:
				t.Errorf("got %v", err)
			case refusal != nil && refusal.Code != tt.code:
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
}

// What this process has no credential for has a destination all the same, in which it waits.
func TestWithoutACredentialItHasItsDestination(t *testing.T) {
	d := delivery()
	d.App = "other"
	where, err := provider(t, config(t, "", nil)).Destination(d)
	if want := (senders.Destination{App: "other", Name: "production"}); !errors.Is(err, senders.ErrNoCredential) || where != want {
		t.Errorf("got %v, %v", where, err)
	}
}
