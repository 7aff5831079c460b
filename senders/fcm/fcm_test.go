package fcm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"firebase.google.com/go/v4/messaging"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

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
		Class:     pb.Class_CLASS_BULK,
		Target:    target("token-1"),
		ExpiresAt: now.Add(time.Hour).UnixMilli(),
		Variables: map[string]string{"attributes.name": "Ada"},
	}
}

func target(token string) *pb.Target {
	return &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: token}}}
}

func compile(t testing.TB, m *pb.Message) *message.Compiled {
	t.Helper()
	c, err := message.Compile(m, message.Campaign)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func serviceAccount(t testing.TB, tokenURL string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "demo-project", "client_email": "belfry@demo-project.iam.gserviceaccount.com",
		"private_key_id": "k1", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri": tokenURL,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// provider has an access token already.
func provider(t testing.TB, url string, ca []byte, piped ...bool) *Provider {
	t.Helper()
	p, err := New(map[string]Config{"demo": {ServiceAccount: serviceAccount(t, "https://oauth.invalid/token"), URL: url, CA: ca, Wire: len(piped) > 0 && piped[0]}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.apps["demo"].close)
	p.apps["demo"].tokens.keep(&oauth2.Token{AccessToken: "access-1"})
	return p
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

// errorBody is Google's form of an error.
func errorBody(status int, name, fcm string, details ...string) string {
	if fcm != "" {
		details = append(details, fmt.Sprintf(`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":%q}`, fcm))
	}
	return fmt.Sprintf(`{"error":{"code":%d,"message":"m","status":%q,"details":[%s]}}`, status, name, strings.Join(details, ","))
}

// TestConformance has one case for each row of docs/providers.md, "FCM", answered by a server over HTTP/2. Whatever the
// answer, firebase must not have asked twice.
func TestConformance(t *testing.T) { exchangetest.BothWays(t, conformance) }

func conformance(t *testing.T, piped bool) {
	const (
		badField = `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.android.ttl","description":"x"}]}`
		badToken = `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.token","description":"x"}]}`
		project  = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"project:1","description":"messages a minute"}]}`
		device   = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"subject":"token:x","description":"Device message rate exceeded"}]}`
	)
	const either = senders.OfDevice | senders.OfService
	drop := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfDevice}
	either400 := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfDevice | senders.OfMessage}
	wrong := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfMessage}
	gone := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Of: senders.OfDevice}
	stop := senders.Verdict{Next: senders.Stop, Of: senders.OfCredential}
	mismatched := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfDevice | senders.OfCredential}
	later := func(of senders.Suspects, after time.Duration, slow, limited bool) senders.Verdict {
		return senders.Verdict{Next: senders.Later, Of: of, After: after, Slow: slow, Limited: limited}
	}
	type before int
	const (
		nothing before = iota
		success        // another device took the same campaign's message
	)
	tests := []struct {
		name   string
		status int
		body   string
		retry  string
		before before
		code   string
		want   senders.Verdict
	}{
		{"accepted", 200, `{"name":"projects/demo-project/messages/1"}`, "", nothing, "", senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_ACCEPTED}},
		{"bad payload", 400, errorBody(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", badField), "", success, "INVALID_ARGUMENT", wrong},
		{"bad token or payload", 400, errorBody(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), "", nothing, "INVALID_ARGUMENT", either400},
		{"bad token, for the payload is good", 400, errorBody(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), "", success, "INVALID_ARGUMENT", gone},
		{"bad token by field", 400, errorBody(400, "INVALID_ARGUMENT", "", badToken), "", success, "INVALID_ARGUMENT", gone},
		{"third party", 401, errorBody(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), "", nothing, "THIRD_PARTY_AUTH_ERROR", later(senders.OfDevice, time.Minute, false, false)},
		{"access token", 401, errorBody(401, "UNAUTHENTICATED", ""), "", nothing, "UNAUTHENTICATED", senders.Verdict{Next: senders.Refresh, Of: senders.OfCredential}},
		{"sender id", 403, errorBody(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), "", nothing, "SENDER_ID_MISMATCH", mismatched},
		{"role", 403, errorBody(403, "PERMISSION_DENIED", ""), "", nothing, "PERMISSION_DENIED", stop},
		{"gone", 404, errorBody(404, "NOT_FOUND", "UNREGISTERED"), "", nothing, "UNREGISTERED", gone},
		{"wrong project", 404, errorBody(404, "NOT_FOUND", ""), "", nothing, "NOT_FOUND", stop},
		{"project quota", 429, errorBody(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", project), "", nothing, "QUOTA_EXCEEDED", later(either, time.Minute, true, true)},
		{"project quota, with a time", 429, errorBody(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", project), "20", nothing, "QUOTA_EXCEEDED", later(either, 20*time.Second, true, true)},
		{"device quota", 429, errorBody(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", device), "", nothing, "QUOTA_EXCEEDED", later(senders.OfDevice, time.Minute, false, false)},
		{"internal", 500, errorBody(500, "INTERNAL", "INTERNAL"), "", nothing, "INTERNAL", later(either, 10*time.Second, true, false)},
		{"unavailable", 503, errorBody(503, "UNAVAILABLE", "UNAVAILABLE"), "", nothing, "UNAVAILABLE", later(either, 0, true, false)},
		{"unavailable, with a time", 503, errorBody(503, "UNAVAILABLE", "UNAVAILABLE"), "45", nothing, "UNAVAILABLE", later(either, 45*time.Second, true, false)},
		{"unspecified", 500, errorBody(500, "UNKNOWN", "UNSPECIFIED_ERROR"), "", nothing, "UNSPECIFIED_ERROR", later(either, 10*time.Second, false, false)},
		// What did not come from FCM.
		{"a gateway's page", 502, "<html>", "", nothing, "502", later(either, 10*time.Second, true, false)},
		{"a dead token's code elsewhere", 400, errorBody(400, "INVALID_ARGUMENT", "UNREGISTERED"), "", success, "UNREGISTERED", drop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int64
			s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); strings.Contains(string(b), "good-token") {
					_, _ = w.Write([]byte(`{"name":"projects/demo-project/messages/0"}`))
					return
				}
				requests.Add(1)
				if tt.retry != "" {
					w.Header().Set("Retry-After", tt.retry)
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			})
			p := provider(t, s.URL, s.CA, piped)
			m := compile(t, &pb.Message{Content: &pb.Content{Title: "t"}})
			if tt.before == success {
				good := delivery()
				good.Target = target("good-token")
				send(t, p, good, m)
			}
			tt.want.Code = tt.code
			if diff := cmp.Diff(tt.want, send(t, p, delivery(), m)); diff != "" {
				t.Error(diff)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// Inside firebase's client each of these is retried, asleep, for up to seven seconds.
func TestFirebaseNeitherRetriesNorSleeps(t *testing.T) {
	var requests atomic.Int64
	s := exchangetest.Serve(t, func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	})
	p := provider(t, s.URL, s.CA)
	v := send(t, p, delivery(), compile(t, &pb.Message{}))
	if requests.Load() != 1 || v.Next != senders.Later || !v.Unknown || v.Code != "reset" || v.After != 10*time.Second || v.Of != senders.OfDevice|senders.OfService {
		t.Errorf("asked %d times, got %+v", requests.Load(), v)
	}
}

func FuzzClassify(f *testing.F) {
	p := provider(f, "", nil)
	request := &senders.Request{Destination: project, Delivery: delivery()}
	f.Add(404, errorBody(404, "NOT_FOUND", "UNREGISTERED"))
	f.Add(400, `{"error":{"details":[{"fieldViolations":[{}]}]}}`)
	f.Add(401, `{"error":[]}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		v := p.Classify(request, &wire.Result{Status: status, Body: []byte(body)})
		if v.Outcome == pb.Outcome_OUTCOME_ACCEPTED && (status < 200 || status > 299) {
			t.Errorf("%d was taken for a success", status)
		}
		if v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED && status != 404 && status != 400 {
			t.Errorf("%d ended a device", status)
		}
		if v.Next == senders.End && v.Outcome == pb.Outcome_OUTCOME_UNSPECIFIED || len(v.Code) > 64 {
			t.Errorf("%d %q: %+v", status, body, v)
		}
	})
}

// TestMessage compares with what firebase's own types marshal to.
func TestMessage(t *testing.T) {
	hour := time.Hour
	data := func(more ...string) map[string]string {
		d := map[string]string{"belfry_id": id}
		for i := 0; i < len(more); i += 2 {
			d[more[i]] = more[i+1]
		}
		return d
	}
	urgent := delivery()
	urgent.Class = pb.Class_CLASS_URGENT
	tests := []struct {
		name string
		d    *pb.Delivery
		m    *pb.Message
		want *messaging.Message
	}{
		{
			"every option", delivery(),
			&pb.Message{
				Content: &pb.Content{Title: "Hi {{ attributes.name }}", Body: "a < b & c", Image: "https://img.example/x.png", Link: "app://x"},
				Data:    map[string]string{"k": "v"}, Collapse: "news",
				Fcm: &pb.FcmOptions{
					Priority: "high", CollapseKey: "ck", ChannelId: "ch", Sound: "s", Icon: "i", Color: "#0a84ff", ClickAction: "OPEN",
					AnalyticsLabel: "label",
				},
			},
			&messaging.Message{
				Token: "token-1", Data: data("k", "v", "link", "app://x"),
				Notification: &messaging.Notification{Title: "Hi Ada", Body: "a < b & c", ImageURL: "https://img.example/x.png"},
				Android: &messaging.AndroidConfig{
					CollapseKey: "ck", Priority: "high", TTL: &hour,
					Notification: &messaging.AndroidNotification{Icon: "i", Color: "#0a84ff", Sound: "s", Tag: "news", ClickAction: "OPEN", ChannelID: "ch"},
				},
				FCMOptions: &messaging.FCMOptions{AnalyticsLabel: "label"},
			},
		},
		{
			"urgent is high", urgent, &pb.Message{Content: &pb.Content{Body: "b"}},
			&messaging.Message{
				Token: "token-1", Data: data(), Notification: &messaging.Notification{Body: "b"},
				Android: &messaging.AndroidConfig{Priority: "high", TTL: &hour, Notification: &messaging.AndroidNotification{Tag: id}},
			},
		},
		{
			"data only", delivery(),
			&pb.Message{Content: &pb.Content{Title: "for the others"}, Data: map[string]string{"link": "app://own"}, Fcm: &pb.FcmOptions{DataOnly: true}},
			&messaging.Message{Token: "token-1", Data: data("link", "app://own"), Android: &messaging.AndroidConfig{Priority: "normal", TTL: &hour}},
		},
		{
			"raw, one level down", delivery(),
			&pb.Message{
				Content: &pb.Content{Title: "t"},
				Fcm:     &pb.FcmOptions{Raw: []byte(`{"android":{"restricted_package_name":"p"},"apns":{"headers":{"apns-priority":"5"}}}`)},
			},
			&messaging.Message{
				Token: "token-1", Data: data(), Notification: &messaging.Notification{Title: "t"},
				Android: &messaging.AndroidConfig{Priority: "normal", TTL: &hour, RestrictedPackageName: "p", Notification: &messaging.AndroidNotification{Tag: id}},
				APNS:    &messaging.APNSConfig{Headers: map[string]string{"apns-priority": "5"}},
			},
		},
	}
	p := provider(t, "", nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := exchangetest.Encode(p, tt.d, compile(t, tt.m), now)
			if err != nil {
				t.Fatal(err)
			}
			reference, err := json.Marshal(map[string]any{"message": tt.want})
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

// An installation id is a target that firebase 4.19 does not know; what it does not know must reach FCM all the same.
func TestWhatFirebaseDoesNotKnowGoesOut(t *testing.T) {
	var got struct{ Message map[string]json.RawMessage }
	var path, auth string
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		path, auth = r.URL.Path, r.Header.Get("Authorization")
		_ = json.NewDecoder(r.Body).Decode(&got)
		_, _ = w.Write([]byte(`{"name":"n"}`))
	})
	p := provider(t, s.URL, s.CA)
	d := delivery()
	d.Target = &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Fid: "fid-1"}}}
	v := send(t, p, d, compile(t, &pb.Message{Fcm: &pb.FcmOptions{Raw: []byte(`{"android":{"younger_than_this":true}}`)}}))
	if v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
		t.Fatalf("got %+v", v)
	}
	if string(got.Message["fid"]) != `"fid-1"` || got.Message["token"] != nil || !strings.Contains(string(got.Message["android"]), "younger_than_this") {
		t.Errorf("got %s", got.Message)
	}
	if path != "/v1/projects/demo-project/messages:send" || auth != "Bearer access-1" {
		t.Errorf("path %s, authorization %s", path, auth)
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	p := provider(t, "", nil)
	size := func(n int) *pb.Message { // a message of n bytes without its target
		m := &pb.Message{Content: &pb.Content{Title: "x"}}
		r, err := exchangetest.Encode(p, delivery(), compile(t, m), now)
		if err != nil {
			t.Fatal(err)
		}
		m.Content.Title = strings.Repeat("x", 1+n-(len(r.Body)-len(`{"message":}`)-len(`"token":"token-1",`)))
		return m
	}
	tests := []struct {
		name string
		d    func(*pb.Delivery)
		m    *pb.Message
		code string
	}{
		{"just fits", nil, size(4096), ""},
		{"a byte too many", nil, size(4097), "payload-too-large"},
		{"no target", func(d *pb.Delivery) { d.Target = target("") }, &pb.Message{}, "bad-target"},
		{"over", func(d *pb.Delivery) { d.ExpiresAt = now.UnixMilli() }, &pb.Message{}, "expired"},
		{"a topic in raw is everybody", nil, &pb.Message{Fcm: &pb.FcmOptions{Raw: []byte(`{"topic":"all"}`)}}, "bad-message"},
		{"raw that is no object", nil, &pb.Message{Fcm: &pb.FcmOptions{Raw: []byte(`1`)}}, "bad-message"},
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

func TestNewNamesEachFault(t *testing.T) {
	good := serviceAccount(t, "https://oauth.invalid/token")
	tests := map[string]Config{
		"no credential":         {},
		"is not JSON":           {ServiceAccount: []byte("x")},
		"not a service account": {ServiceAccount: []byte(`{"type":"authorized_user"}`)},
		"not an https URL":      {ServiceAccount: good, URL: "http://gateway"},
		"holds no certificate":  {ServiceAccount: good, CA: []byte("x")},
		"private_key is not":    {ServiceAccount: []byte(strings.Replace(string(good), "BEGIN PRIVATE", "BEGIN BROKEN", 1))},
	}
	apps := make(map[string]Config)
	for want, c := range tests {
		apps[fmt.Sprintf("app-%x", want)] = c
	}
	_, err := New(apps, slog.New(slog.DiscardHandler))
	for want := range tests {
		if prefix := fmt.Sprintf("app app-%x: fcm: ", want); err == nil || !strings.Contains(err.Error(), prefix) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said of its app", want)
		}
	}
}

// What this process has no credential for has a destination all the same, in which it waits.
func TestWithoutACredentialItHasItsDestination(t *testing.T) {
	d := delivery()
	d.App = "other"
	where, err := provider(t, "", nil).Destination(d)
	if want := (senders.Destination{App: "other", Name: "unconfigured"}); !errors.Is(err, senders.ErrNoCredential) || where != want {
		t.Errorf("got %v, %v", where, err)
	}
}
