package webpush

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/webpush/encrypt"
	"github.com/belfry/belfry/senders/wire"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const id = "0f1e2d3c-4b5a-8978-8796-a5b4c3d2e1f0"

var b64 = base64.RawURLEncoding

// browser is a subscription's private half.
type browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

var alice = sync.OnceValue(func() browser {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return browser{key, []byte("0123456789abcdef")}
})

func delivery(endpoint string) *pb.Delivery {
	return &pb.Delivery{
		Id:     []byte{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x89, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0},
		App:    "demo",
		Run:    "c1",
		Device: "d1",
		Class:  pb.Class_CLASS_BULK,
		Target: &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{
			Endpoint: endpoint, P256Dh: alice().key.PublicKey().Bytes(), Auth: alice().auth,
		}}},
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

var vapidKey = sync.OnceValue(func() *ecdh.PrivateKey {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func config() Config {
	return Config{
		PublicKey:  b64.EncodeToString(vapidKey().PublicKey().Bytes()),
		PrivateKey: b64.EncodeToString(vapidKey().Bytes()),
		Subject:    "mailto:ops@example.com",
	}
}

func provider(t testing.TB, c Config) *Provider {
	t.Helper()
	p, err := New(map[string]Config{"demo": c}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Run(t.Context()) }) // whose context is done: it closes
	return p
}

// eachTransport runs a test of what must be the same by the library and by wire.
func eachTransport(t *testing.T, test func(t *testing.T, c Config)) {
	for name, wire := range map[string]bool{"library": false, "wire": true} {
		t.Run(name, func(t *testing.T) {
			c := config()
			c.Wire = wire
			test(t, c)
		})
	}
}

// serving is a provider that may ask the test's own server.
func serving(t testing.TB, c Config, s *exchangetest.Server) *Provider {
	c.AllowHosts, c.CA = []string{strings.TrimPrefix(s.URL, "https://")}, s.CA
	return provider(t, c)
}

func send(t testing.TB, p *Provider, d *pb.Delivery, m *message.Compiled) senders.Verdict {
	t.Helper()
	r, err := exchangetest.Encode(p, d, m, now)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := exchangetest.Ask(t.Context(), p, r)
	return v
}

// decrypt is RFC 8291 from the browser's side, with nothing of webpush-go's.
func (b browser) decrypt(body []byte) ([]byte, error) {
	if len(body) > 4096 || len(body) < 86+17 || body[20] != 65 {
		return nil, fmt.Errorf("a body of %d bytes, key length %d", len(body), body[20])
	}
	salt, size, sender := body[:16], binary.BigEndian.Uint32(body[16:20]), body[21:86]
	if record := len(body) - 86; int(size) < record {
		return nil, fmt.Errorf("a record of %d bytes, said to be %d", record, size)
	}
	public, err := ecdh.P256().NewPublicKey(sender)
	if err != nil {
		return nil, err
	}
	secret, err := b.key.ECDH(public)
	if err != nil {
		return nil, err
	}
	info := "WebPush: info\x00" + string(b.key.PublicKey().Bytes()) + string(sender)
	ikm, err := hkdf.Key(sha256.New, secret, b.auth, info, 32)
	if err != nil {
		return nil, err
	}
	key, err1 := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	nonce, err2 := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	block, err3 := aes.NewCipher(key)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	padded, err := gcm.Open(nil, nonce, body[86:], nil)
	if err != nil {
		return nil, err
	}
	plain := bytes.TrimRight(padded, "\x00")
	if len(plain) == 0 || plain[len(plain)-1] != 2 {
		return nil, errors.New("no delimiter of a last record")
	}
	return plain[:len(plain)-1], nil
}

func TestWhatGoesOnTheWire(t *testing.T) { eachTransport(t, testWhatGoesOnTheWire) }

func testWhatGoesOnTheWire(t *testing.T, c Config) {
	type seen struct {
		header http.Header
		body   []byte
		target string
	}
	var got []seen
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, seen{r.Header, b, r.URL.RequestURI()})
		w.WriteHeader(http.StatusCreated)
	})
	p := serving(t, c, s)
	m := compile(t, &pb.Message{
		Content: &pb.Content{Title: "Hi {{ attributes.name }}", Body: "a < b", Image: "https://i.example/x", Link: "https://e.example/?a=1&b=2"},
		Data:    map[string]string{"k": "v"},
		Webpush: &pb.WebPushOptions{Icon: "https://i.example/i", Badge: "https://i.example/b", RequireInteraction: true, Raw: []byte(`{"actions":[1],"icon":"other"}`)},
	})
	for range 3 {
		if v := send(t, p, delivery(s.URL+"/push/abc?x=1"), m); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
			t.Fatalf("got %+v", v)
		}
	}
	want := map[string]string{
		"Ttl": "3600", "Urgency": "normal", "Topic": b64.EncodeToString(delivery("").Id), "Content-Encoding": "aes128gcm",
	}
	for name, value := range want {
		if v := got[0].header[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, want %q", name, v, value)
		}
	}
	if got[0].target != "/push/abc?x=1" {
		t.Errorf("target %s", got[0].target)
	}
	plain, err := alice().decrypt(got[0].body)
	if err != nil {
		t.Fatal(err)
	}
	var body any
	if err := json.Unmarshal(plain, &body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{
		"id": id, "tag": id, "title": "Hi Ada", "body": "a < b", "image": "https://i.example/x", "link": "https://e.example/?a=1&b=2",
		"icon": "other", "badge": "https://i.example/b", "require_interaction": true, "data": map[string]any{"k": "v"}, "actions": []any{1.0},
	}, body); diff != "" {
		t.Error(diff)
	}
	checkVapid(t, got[0].header.Get("Authorization"), s.URL)
	if got[1].header.Get("Authorization") != got[0].header.Get("Authorization") {
		t.Error("the VAPID header changed within the hour")
	}
	if bytes.Equal(got[1].body[:86], got[0].body[:86]) {
		t.Error("salt or key were used twice")
	}
}

func checkVapid(t *testing.T, header, origin string) {
	t.Helper()
	claims := readVapid(t, header)
	exp, err := claims.GetExpirationTime()
	if err != nil || claims["aud"] != origin || claims["sub"] != "mailto:ops@example.com" || time.Until(exp.Time) > 24*time.Hour {
		t.Errorf("claims %v", claims)
	}
	if _, k, _ := strings.Cut(header, ", k="); k != b64.EncodeToString(vapidKey().PublicKey().Bytes()) {
		t.Errorf("key %q", k)
	}
}

// The audience is the origin in canonical form, however the browser wrote it.
func TestEndpointIsSentCanonical(t *testing.T) {
	r, err := exchangetest.Encode(provider(t, config()), delivery("HTTPS://FCM.GoogleAPIs.com:443/fcm/send/AbC?q=%2F"), compile(t, &pb.Message{}), now)
	if err != nil || r.Origin+r.Path != "https://fcm.googleapis.com/fcm/send/AbC?q=%2F" || r.Destination.Name != "fcm.googleapis.com" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestARefusedHeaderIsSignedAnew(t *testing.T) { eachTransport(t, testARefusedHeaderIsSignedAnew) }

func testARefusedHeaderIsSignedAnew(t *testing.T, c Config) {
	var headers []string
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		headers = append(headers, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
	})
	p, m := serving(t, c, s), compile(t, &pb.Message{})
	send(t, p, delivery(s.URL+"/a"), m)
	send(t, p, delivery(s.URL+"/a"), m)
	if headers[0] == headers[1] {
		t.Error("the header that was refused was sent again")
	}
}

func TestPaddingHidesLengthWithoutFillingUp(t *testing.T) {
	eachTransport(t, testPaddingHidesLengthWithoutFillingUp)
}

func testPaddingHidesLengthWithoutFillingUp(t *testing.T, c Config) {
	var sizes []int
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		plain, err := alice().decrypt(b)
		if err != nil || !json.Valid(plain) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
		sizes = append(sizes, len(b))
		w.WriteHeader(http.StatusCreated)
	})
	p := serving(t, c, s)
	empty, err := exchangetest.Encode(p, delivery(s.URL), compile(t, &pb.Message{Content: &pb.Content{Title: "x"}}), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 10, 1000, 3993 - len(empty.Plain) + 1} {
		send(t, p, delivery(s.URL), compile(t, &pb.Message{Content: &pb.Content{Title: strings.Repeat("x", n)}}))
	}
	if sizes[0] != sizes[1] || sizes[0]%256 != 0 || sizes[2] >= 2048 || sizes[3] != 4096 {
		t.Errorf("bodies of %v bytes", sizes)
	}
}

func TestPaddingIsChosen(t *testing.T) { eachTransport(t, testPaddingIsChosen) }

func testPaddingIsChosen(t *testing.T, c Config) {
	var size int
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		size = len(b)
		w.WriteHeader(http.StatusCreated)
	})
	m := compile(t, &pb.Message{Content: &pb.Content{Title: strings.Repeat("x", 200)}})
	for _, padding := range []int{1, 1000, 4096} {
		c.Padding = padding
		p := serving(t, c, s)
		r, err := exchangetest.Encode(p, delivery(s.URL), m, now)
		if err != nil {
			t.Fatal(err)
		}
		send(t, p, delivery(s.URL), m)
		if want := encrypt.Size(len(r.Plain), padding); size != want {
			t.Errorf("padded to %d: a body of %d bytes, want %d", padding, size, want)
		}
	}
}

// What is the same for many requests may be in HPACK's table; what is not would only drive that out.
func TestWhichFieldsAreShared(t *testing.T) {
	p := provider(t, config())
	for name, tt := range map[string]struct {
		m    *pb.Message
		once []string
	}{
		"a topic of its own": {&pb.Message{}, []string{headerTopic, headerTTL}},
		"a collapse":         {&pb.Message{Collapse: "news"}, []string{headerTTL}},
	} {
		r, err := exchangetest.Encode(p, delivery("https://fcm.googleapis.com/x"), compile(t, tt.m), now)
		if err != nil {
			t.Fatal(err)
		}
		var once []string
		for _, f := range r.Fields {
			if f.Kind == wire.Once {
				once = append(once, f.Name)
			}
		}
		if diff := cmp.Diff(tt.once, once); diff != "" || r.Field(headerEncoding) != "aes128gcm" {
			t.Errorf("%s: %s, fields %v", name, diff, r.Fields)
		}
	}
}

// A request is used again: nothing of the delivery before may be left.
func TestEncodeReusesARequest(t *testing.T) {
	p := provider(t, config())
	long := delivery("https://fcm.googleapis.com/fcm/send/a-long-endpoint")
	long.Variables["attributes.name"] = strings.Repeat("Ada ", 100)
	m := compile(t, &pb.Message{Content: &pb.Content{Title: "Hi {{ attributes.name }}"}})
	short := delivery("https://web.push.apple.com/x")
	used, fresh := &senders.Request{}, &senders.Request{}
	for _, step := range []struct {
		r *senders.Request
		d *pb.Delivery
	}{{used, long}, {used, short}, {fresh, short}} {
		if err := p.Encode(step.r, step.d, m, now); err != nil {
			t.Fatal(err)
		}
	}
	type content struct {
		Origin, Path, Plain string
		Fields              []wire.Field
	}
	of := func(r *senders.Request) content { return content{r.Origin, r.Path, string(r.Plain), r.Fields} }
	if diff := cmp.Diff(of(fresh), of(used)); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	urgent := delivery("https://fcm.googleapis.com/x")
	urgent.Class = pb.Class_CLASS_URGENT
	urgent.ExpiresAt = now.Add(300 * time.Millisecond).UnixMilli()
	p := provider(t, config())
	tests := []struct {
		name                string
		d                   *pb.Delivery
		m                   *pb.Message
		ttl, topic, urgency string
	}{
		{"urgent, and Windows takes no TTL of 0", urgent, &pb.Message{}, "1", b64.EncodeToString(urgent.Id), "high"},
		{"own urgency and topic", delivery("https://fcm.googleapis.com/x"), &pb.Message{Collapse: "breaking-news_1", Webpush: &pb.WebPushOptions{Urgency: "very-low"}}, "3600", "breaking-news_1", "very-low"},
		{"a collapse that is no topic", delivery("https://fcm.googleapis.com/x"), &pb.Message{Collapse: "breaking news"}, "3600", "", "normal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := exchangetest.Encode(p, tt.d, compile(t, tt.m), now)
			if err != nil {
				t.Fatal(err)
			}
			topic := r.Field(headerTopic)
			if tt.topic == "" { // any that is one, and the same each time
				if len(topic) != 32 || !isTopic(topic) {
					t.Errorf("topic %q", topic)
				}
				tt.topic = topic
			}
			if diff := cmp.Diff([]string{tt.ttl, tt.topic, tt.urgency}, []string{r.Field(headerTTL), topic, r.Field(headerUrgency)}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	p := provider(t, config())
	const good = "https://fcm.googleapis.com/x"
	empty, err := exchangetest.Encode(p, delivery(good), compile(t, &pb.Message{Content: &pb.Content{Title: "x"}}), now)
	if err != nil {
		t.Fatal(err)
	}
	title := func(n int) *pb.Message {
		return &pb.Message{Content: &pb.Content{Title: strings.Repeat("x", n-len(empty.Plain)+1)}}
	}
	tests := []struct {
		name string
		d    func(*pb.Delivery)
		m    *pb.Message
		code string
	}{
		{"just fits", nil, title(3993), ""},
		{"a byte too many", nil, title(3994), "payload-too-large"},
		{"no target", func(d *pb.Delivery) { d.Target = nil }, &pb.Message{}, "bad-endpoint"},
		{"no https", func(d *pb.Delivery) { d.Target.GetWebpush().Endpoint = "http://push.example/x" }, &pb.Message{}, "bad-endpoint"},
		{"a point off the curve", func(d *pb.Delivery) { d.Target.GetWebpush().P256Dh = make([]byte, 65) }, &pb.Message{}, "bad-subscription"},
		{"a short secret", func(d *pb.Delivery) { d.Target.GetWebpush().Auth = make([]byte, 15) }, &pb.Message{}, "bad-subscription"},
		{"over", func(d *pb.Delivery) { d.ExpiresAt = now.UnixMilli() }, &pb.Message{}, "expired"},
		{"raw that is no object", nil, &pb.Message{Webpush: &pb.WebPushOptions{Raw: []byte(`"x"`)}}, "bad-message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := delivery(good)
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

func TestNewNamesEachFault(t *testing.T) {
	with := func(change func(*Config)) Config { c := config(); change(&c); return c }
	tests := map[string]Config{
		"public_key is not 65 bytes":  with(func(c *Config) { c.PublicKey = "AAAA" }),
		"private_key is not 32 bytes": with(func(c *Config) { c.PrivateKey = "!" }),
		"are no pair":                 with(func(c *Config) { c.PublicKey = b64.EncodeToString(alice().key.PublicKey().Bytes()) }),
		"subject \"ops\"":             with(func(c *Config) { c.Subject = "ops" }),
		"allow_hosts: \"a:b:c\"":      with(func(c *Config) { c.AllowHosts = []string{"a:b:c"} }),
		"holds no certificate":        with(func(c *Config) { c.CA = []byte("x") }),
	}
	apps := make(map[string]Config)
	for want, c := range tests {
		apps[fmt.Sprintf("app-%x", want)] = c
	}
	_, err := New(apps, slog.New(slog.DiscardHandler))
	for want := range tests {
		if prefix := fmt.Sprintf("app app-%x: webpush: ", want); err == nil || !strings.Contains(err.Error(), prefix) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said of its app", want)
		}
	}
	https := config()
	https.Subject, https.PublicKey = "https://example.com/contact", https.PublicKey+"="
	if _, err := New(map[string]Config{"a": https}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

func BenchmarkEncode(b *testing.B) {
	p := provider(b, config())
	m := compile(b, &pb.Message{Content: &pb.Content{Title: "Hi {{ attributes.name }}", Body: "Your order is on its way"}, Data: map[string]string{"order": "12"}})
	d := delivery("https://fcm.googleapis.com/fcm/send/abc")
	r := &senders.Request{}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Encode(r, d, m, now); err != nil {
			b.Fatal(err)
		}
	}
}

// What this process has no credential for has a destination all the same, in which it waits.
func TestWithoutACredentialItHasItsDestination(t *testing.T) {
	d := delivery("https://web.push.apple.com/x")
	d.App = "other"
	where, err := provider(t, config()).Destination(d)
	if want := (senders.Destination{App: "other", Name: "web.push.apple.com"}); !errors.Is(err, senders.ErrNoCredential) || where != want {
		t.Errorf("got %v, %v", where, err)
	}
}
