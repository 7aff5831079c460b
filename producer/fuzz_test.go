package producer_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// bodies are what the API takes, by where it takes it.
var bodies = []struct{ method, path string }{
	{http.MethodPut, "/v1/devices/d-1"},
	{http.MethodPost, "/v1/devices/bulk"},
	{http.MethodPost, "/v1/events"},
	{http.MethodPost, "/v1/messages?dry_run=true"},
	{http.MethodPost, "/v1/campaigns"},
	{http.MethodPost, "/v1/campaigns/c-1/pause"},
	{http.MethodPost, "/v1/replays?dry_run=true"},
}

// FuzzBodies: whatever the body, the server answers, and it is the body's fault and not the server's.
func FuzzBodies(f *testing.F) {
	for i, body := range []string{
		`{"user": "ada", "tags": ["a"], "attributes": {"n": 1}, "apns": {"token": "a1b2c3d4e5f60718293a4b5c6d7e8f90", "environment": "sandbox"}}`,
		`{"op": "put", "id": "d-2", "fcm": {"token": "t"}}` + "\n" + `{"op": "delete", "id": "d-3"}` + "\nx\n",
		`{"id": "e", "name": "n", "user": "ada", "fields": {"a": true, "b": 1e9, "c": "d"}}`,
		`{"to": [{"user": "ada"}, {"device": "d-1"}], "message": {"title": "{{ data.code }}", "ttl": "5m"}, "data": {"code": "1"}}`,
		`{"id": "c", "audience": {"filter": "locale == \"fr\""}, "message": {"title": "t", "apns": {"raw": {"a": 1}}}, "pace": {"per_second": 1}}`,
		`{"reason": "x"}`,
		`{"filter": {"platforms": ["fcm"]}, "rate": 5}`,
	} {
		for at := range bodies {
			f.Add(byte(at), body)
		}
		f.Add(byte(i), body[:len(body)/2])
	}
	a := start(f, &pb.Device{
		App: "shop", Id: "d-1", User: "ada", Platform: pb.Platform_PLATFORM_FCM,
		Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "t"}}},
	})
	f.Fuzz(func(t *testing.T, at byte, body string) {
		where := bodies[int(at)%len(bodies)]
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, where.method, a.url+where.path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+allKey)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if errors.Is(err, context.DeadlineExceeded) {
			return // a command is good, and waits for a launcher; none runs here
		}
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode >= 500 || answer.StatusCode < 200 {
			t.Errorf("%s %s: %s for %q", where.method, where.path, answer.Status, body)
		}
		if answer.StatusCode >= 400 && answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %s is no problem", where.method, where.path, answer.Status)
		}
	})
}
