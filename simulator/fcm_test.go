package simulator

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"
)

type googleAnswer struct {
	Error struct {
		Code    int
		Message string
		Status  string
		Details []struct {
			Type            string `json:"@type"`
			ErrorCode       string
			FieldViolations []violation
		}
	}
}

// code is FCM's error code, or with a payload's fault "field: " and the field, or else Google's status.
func (a googleAnswer) code() string {
	for _, d := range a.Error.Details {
		if d.ErrorCode != "" {
			return d.ErrorCode
		}
		if len(d.FieldViolations) > 0 {
			return "field: " + d.FieldViolations[0].Field
		}
	}
	return a.Error.Status
}

func TestFCMStrict(t *testing.T) {
	s := start(t, nil)
	a, c := app(t, s, "demo"), client(t, s)
	access := accessToken(t, s, c, a)
	installed := pickWhere(t, s, "demo", func(d device) bool { return d.fid && d.fate == Healthy })
	device := s.world.fcmToken(pick(t, s, "demo", FCM, Healthy).target)
	tokenOf := func(name string, fate Fate) string { return s.world.fcmToken(pick(t, s, name, FCM, fate).target) }
	with := func(message string) string { return `{"message":{"token":"` + device + `",` + message + `}}` }
	to := func(token string) string { return `{"message":{"token":"` + token + `","data":{"a":"b"}}}` }
	full := with(`"data":{"belfry_id":"` + testID + `","k":"v"},"notification":{"title":"Hi","body":"Ada","image":"https://x.example/i.png"},
		"android":{"collapse_key":"c","priority":"HIGH","ttl":"3600s","restricted_package_name":"com.example","direct_boot_ok":true,
			"notification":{"tag":"t","channel_id":"news","title_loc_args":["a"],"vibrate_timings":["0.2s"],"notification_count":3,
				"visibility":"PUBLIC","event_time":"2026-11-24T10:00:00Z","light_settings":{"color":{"red":1,"green":0,"blue":0,"alpha":1},"light_on_duration":"1s","light_off_duration":"1.5s"}}},
		"apns":{"headers":{"apns-priority":"5"},"payload":{"aps":{"alert":{"title":"x"}}}},
		"webpush":{"headers":{"TTL":"60"},"notification":{"title":"x","requireInteraction":true},"fcm_options":{"link":"https://x.example"}},
		"fcm_options":{"analytics_label":"spring-2026"}`)
	for _, k := range []struct {
		name, path, method, body string
		header                   map[string]string
		status                   int
		code                     string
	}{
		{name: "everything", body: full, status: 200},
		{name: "camel case", body: with(`"android":{"collapseKey":"c","directBootOk":false,"notification":{"channelId":"x"}}`), status: 200},
		{name: "installation id", body: `{"message":{"fid":"` + s.world.fid(installed.target) + `","data":{"a":"b"}}}`, status: 200},
		{name: "topic", body: `{"message":{"topic":"news","data":{"a":"b"}}}`, status: 200},
		{name: "null", body: with(`"notification":null`), status: 200},
		{name: "validate only", body: `{"validate_only":true,"message":{"token":"` + device + `"}}`, status: 200},
		{name: "at the limit", body: with(`"data":{"k":"` + strings.Repeat("v", 4095) + `"}`), status: 200},

		{name: "no access token", header: map[string]string{"Authorization": ""}, status: 401, code: "UNAUTHENTICATED"},
		{name: "access token altered", header: map[string]string{"Authorization": "Bearer " + access[:len(access)-3] + "AAA"}, status: 401, code: "UNAUTHENTICATED"},
		{name: "access token expired", header: map[string]string{"Authorization": "Bearer " + s.world.accessToken(a.index, time.Now().Unix()-1)}, status: 401, code: "UNAUTHENTICATED"},
		{name: "access token of another", header: map[string]string{"Authorization": "Bearer " + s.world.accessToken(1, time.Now().Unix()+60)}, status: 403, code: "PERMISSION_DENIED"},
		{name: "unknown project", path: "/v1/projects/nobody/messages:send", status: 404, code: "NOT_FOUND"},
		{name: "path", path: "/v1/projects/x/messages", status: 404, code: "NOT_FOUND"},
		{name: "method", method: "PUT", status: 405, code: "INVALID_ARGUMENT"},
		{name: "content type", header: map[string]string{"Content-Type": "text/plain"}, status: 400, code: "INVALID_ARGUMENT"},
		{name: "no json", body: `{"message":`, status: 400, code: "INVALID_ARGUMENT"},
		{name: "no message", body: `{}`, status: 400, code: "field: message"},
		{name: "unknown field", body: with(`"colour":"red"`), status: 400, code: "field: message"},
		{name: "unknown field below", body: with(`"android":{"notification":{"colour":"red"}}`), status: 400, code: "field: message.android.notification"},
		{name: "data number", body: with(`"data":{"n":1}`), status: 400, code: "field: message.data[n].value"},
		{name: "data reserved", body: with(`"data":{"google.x":"1"}`), status: 400, code: "field: message.data"},
		{name: "data from", body: with(`"android":{"data":{"from":"1"}}`), status: 400, code: "field: message.android.data"},
		{name: "priority", body: with(`"android":{"priority":"urgent"}`), status: 400, code: "field: message.android.priority"},
		{name: "ttl number", body: with(`"android":{"ttl":3600}`), status: 400, code: "field: message.android.ttl"},
		{name: "ttl form", body: with(`"android":{"ttl":"1h"}`), status: 400, code: "field: message.android.ttl"},
		{name: "ttl above 28 days", body: with(`"android":{"ttl":"2419201s"}`), status: 400, code: "field: message.android.ttl"},
		{name: "title number", body: with(`"notification":{"title":1}`), status: 400, code: "field: message.notification.title"},
		{name: "label", body: with(`"fcm_options":{"analytics_label":"a b"}`), status: 400, code: "field: message.fcm_options.analytics_label"},
		{name: "two targets", body: with(`"topic":"news"`), status: 400, code: "field: message"},
		{name: "no target", body: `{"message":{"data":{"a":"b"}}}`, status: 400, code: "field: message"},
		{name: "too large", body: with(`"data":{"k":"` + strings.Repeat("v", 4096) + `"}`), status: 400, code: "INVALID_ARGUMENT"},
		{name: "body too large", body: with(`"data":{"k":"` + strings.Repeat("v", 70_000) + `"}`), status: 400, code: "INVALID_ARGUMENT"},
		{name: "token", body: to("abc"), status: 400, code: "INVALID_ARGUMENT"},
		{name: "token altered", body: to("c" + device[1:21] + "xx" + device[23:]), status: 400, code: "INVALID_ARGUMENT"},
		{name: "other sender", body: to(tokenOf("demo", Misplaced)), status: 403, code: "SENDER_ID_MISMATCH"},
		{name: "other app", body: to(tokenOf("other", Healthy)), status: 403, code: "SENDER_ID_MISMATCH"},
		{name: "gone", body: to(tokenOf("demo", Gone)), status: 404, code: "UNREGISTERED"},
		{name: "token of one that is known by its installation id", body: to(s.world.fcmToken(installed.target)), status: 404, code: "UNREGISTERED"},
		{name: "installation id of one that is known by its token", body: `{"message":{"fid":"` + s.world.fid(pick(t, s, "demo", FCM, Healthy).target) + `"}}`, status: 404, code: "UNREGISTERED"},
		{name: "installation id of nobody", body: `{"message":{"fid":"cAAAAAAAAAAAAAAAAAAAAA"}}`, status: 400, code: "INVALID_ARGUMENT"},
	} {
		t.Run(k.name, func(t *testing.T) {
			h := map[string]string{"Authorization": "Bearer " + access, "Content-Type": "application/json"}
			for name, v := range k.header {
				h[name] = v
			}
			path, body := "/v1/projects/"+a.Project+"/messages:send", full
			if k.path != "" {
				path = k.path
			}
			if k.body != "" {
				body = k.body
			}
			r := post(t, s.URL(FCM)+path, h, []byte(body))
			if k.method != "" {
				r.Method = k.method
			}
			res := do(t, c, r)
			if res.status != k.status {
				t.Fatalf("%d %s, want %d", res.status, res.body, k.status)
			}
			var g googleAnswer
			if err := json.Unmarshal([]byte(res.body), &g); err != nil {
				t.Fatal(err)
			}
			if res.status != 200 && (g.code() != k.code || g.Error.Code != k.status) {
				t.Errorf("code %s, want %s: %s", g.code(), k.code, res.body)
			}
		})
	}
	if sum := summary(t, s); sum.Distinct != 1 || sum.Repeats != 0 || sum.Unnamed != 5 {
		t.Errorf("%+v: want 1 distinct, 5 unnamed, and none of what was only validated", sum)
	}
}

func TestOAuthStrict(t *testing.T) {
	s := start(t, nil)
	a, c := app(t, s, "demo"), client(t, s)
	now := time.Now().Unix()
	for _, k := range []struct {
		name  string
		claim string
		value any
		kid   string
		code  string
	}{
		{name: "account", claim: "iss", value: "who@example.com", code: "invalid_grant"},
		{name: "audience", claim: "aud", value: "https://oauth2.googleapis.com/token", code: "invalid_grant"},
		{name: "expired", claim: "exp", value: now - 1, code: "invalid_grant"},
		{name: "too long", claim: "exp", value: now + 7200, code: "invalid_grant"},
		{name: "future", claim: "iat", value: now + 600, code: "invalid_grant"},
		{name: "scope", claim: "scope", value: "https://www.googleapis.com/auth/drive", code: "invalid_scope"},
		{name: "key id", claim: "x", kid: "another", code: "invalid_grant"},
		{name: "other account", claim: "iss", value: app(t, s, "other").ClientEmail, code: "invalid_grant"},
	} {
		claims := jwt.MapClaims{
			"iss": a.ClientEmail, "aud": s.URL(OAuth) + "/token", "iat": now, "exp": now + 3600,
			"scope": "https://www.googleapis.com/auth/firebase.messaging",
		}
		claims[k.claim] = k.value
		kid := a.serviceKeyID
		if k.kid != "" {
			kid = k.kid
		}
		res := askToken(t, s, c, sign(t, jwt.SigningMethodRS256, a.serviceKey(), kid, claims))
		if res.status != 400 || !strings.Contains(res.body, k.code) {
			t.Errorf("%s: %d %s", k.name, res.status, res.body)
		}
	}
	if res := askToken(t, s, c, "junk"); res.status != 400 {
		t.Errorf("junk: %d", res.status)
	}
}

// elsewhereTransport sends what is meant for Google to the simulator.
type elsewhereTransport struct {
	host string
	next http.RoundTripper
}

func (e elsewhereTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = e.host
	return e.next.RoundTrip(r)
}

// Google's own libraries, which know nothing of the simulator, get a token with the service account's file and send.
func TestFirebaseIsAccepted(t *testing.T) {
	s := start(t, nil)
	a, c := app(t, s, "demo"), client(t, s)
	file, err := s.ServiceAccount(a)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := google.JWTConfigFromJSON(file, "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, c)
	authorized := &http.Client{Transport: &oauth2.Transport{
		Source: conf.TokenSource(ctx), Base: elsewhereTransport{s.Address(FCM), c.Transport},
	}}
	fb, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: a.Project}, option.WithHTTPClient(authorized))
	if err != nil {
		t.Fatal(err)
	}
	m, err := fb.Messaging(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ttl, count := 90*time.Minute, 2
	msg := &messaging.Message{
		Token: s.world.fcmToken(pick(t, s, "demo", FCM, Healthy).target), Data: map[string]string{"belfry_id": testID},
		Notification: &messaging.Notification{Title: "Hello", Body: "小龍"},
		Android: &messaging.AndroidConfig{
			TTL: &ttl, Priority: "high", CollapseKey: "c",
			Notification: &messaging.AndroidNotification{
				Tag: "t", ChannelID: "news", NotificationCount: &count, Priority: messaging.PriorityHigh,
				Visibility: messaging.VisibilityPublic, VibrateTimingMillis: []int64{100, 200},
			},
		},
		APNS:    &messaging.APNSConfig{Payload: &messaging.APNSPayload{Aps: &messaging.Aps{Alert: &messaging.ApsAlert{Title: "x"}}}},
		Webpush: &messaging.WebpushConfig{Notification: &messaging.WebpushNotification{Title: "x", Actions: []*messaging.WebpushNotificationAction{{Action: "open"}}}},
	}
	name, err := m.Send(ctx, msg)
	if err != nil || !strings.HasPrefix(name, "projects/"+a.Project+"/messages/0:") {
		t.Fatalf("%q %v", name, err)
	}
	msg.Token = s.world.fcmToken(pick(t, s, "demo", FCM, Gone).target)
	if _, err := m.Send(ctx, msg); !messaging.IsUnregistered(err) {
		t.Errorf("gone: %v", err)
	}
	msg.Token = s.world.fcmToken(pick(t, s, "demo", FCM, Misplaced).target)
	if _, err := m.Send(ctx, msg); !messaging.IsSenderIDMismatch(err) {
		t.Errorf("misplaced: %v", err)
	}
	if id, _ := ParseID(testID); s.Received(id) != 1 {
		t.Error("no receipt")
	}
}
