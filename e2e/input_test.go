package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/belfry/belfry/producer"
)

// Each bad call is refused with the field at fault, and nothing of it is done.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 200, edit: func(yaml string) string {
		reader := fmt.Sprintf("    keys:\n      - {name: reader, hash: \"sha256:%x\", scopes: [read]}\n", sha256.Sum256([]byte("reader")))
		return strings.Replace(yaml, "    keys:\n", reader, 1)
	}})
	w.start()
	w.register("demo")
	campaign := func(message, audience string) string {
		return `{"id": "bad", "launch": true, "message": ` + message + `, "audience": ` + audience + `}`
	}
	const message, everybody = `{"title": "Hello"}`, `{"everyone": true}`
	device := func(target string) string { return `{` + target + `}` }
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		problem, field           string
	}{
		{"no key", "GET", "/v1/campaigns", "", []string{"Authorization", ""}, 401, "unauthorized", ""},
		{"unknown key", "GET", "/v1/campaigns", "", []string{"Authorization", "Bearer nobody's"}, 401, "unauthorized", ""},
		{"scope", "POST", "/v1/campaigns", campaign(message, everybody), []string{"Authorization", "Bearer reader"}, 403, "forbidden", ""},
		{"not JSON", "POST", "/v1/campaigns", `{"id": "bad"`, nil, 400, "malformed", ""},
		{"unknown field", "POST", "/v1/campaigns", strings.Replace(campaign(message, everybody), "launch", "lunch", 1), nil, 422, "invalid", "lunch"},
		{"oversized body", "POST", "/v1/campaigns", campaign(`{"title": "`+strings.Repeat("x", 600<<10)+`"}`, everybody), nil, 413, "too-large", ""},
		{"oversized message", "POST", "/v1/messages", `{"to": {"device": "d-000001"}, "message": {"title": "` + strings.Repeat("x", 70<<10) + `"}}`, nil, 413, "too-large", ""},
		{"template", "POST", "/v1/campaigns", campaign(`{"title": "Hello {{ attributes.first_name"}`, everybody), nil, 422, "invalid", "message.title"},
		{"unknown variable", "POST", "/v1/campaigns", campaign(`{"title": "Hello", "body": "{{ nmae }}"}`, everybody), nil, 422, "invalid", "message.body"},
		{"audience expression", "POST", "/v1/campaigns", campaign(message, `{"filter": "locale =! \"fr\""}`), nil, 422, "invalid", "audience.filter"},
		{"two audiences", "POST", "/v1/campaigns", campaign(message, `{"everyone": true, "devices": ["d-000001"]}`), nil, 422, "invalid", "audience"},
		{"token", "PUT", "/v1/devices/bad", device(`"apns": {"token": "xyz"}`), nil, 422, "invalid", "apns.token"},
		{"web push key", "PUT", "/v1/devices/bad", device(`"webpush": {"endpoint": "https://updates.push.services.mozilla.com/x", "p256dh": "AAAA", "auth": "AAAA"}`), nil, 422, "invalid", "webpush.p256dh"},
		{"endpoint within", "PUT", "/v1/devices/bad", device(`"webpush": {"endpoint": "https://10.0.0.1/x", "p256dh": "AAAA", "auth": "AAAA"}`), nil, 422, "invalid", "webpush.endpoint"},
		{"no such campaign", "POST", "/v1/campaigns/nobody/pause", "", nil, 404, "not-found", ""},
		{"no such device", "POST", "/v1/messages", `{"to": {"device": "nobody"}, "message": {"title": "x"}}`, nil, 404, "not-found", ""},
	} {
		a := w.call("demo", c.method, c.path, c.body, c.header...)
		var p producer.Problem
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != c.status || p.Type != "urn:belfry:problem:"+c.problem {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.status, a.body, c.status, c.problem)
			continue
		}
		if c.field != "" && !names(p, c.field) {
			t.Errorf("%s: no fault names %s: %s", c.name, c.field, a.body)
		}
	}
	if a := w.call("demo", http.MethodGet, "/v1/campaigns/bad", ""); a.status != http.StatusNotFound {
		t.Errorf("a refused campaign is there: %d %s", a.status, a.body)
	}
	if a := w.call("demo", http.MethodGet, "/v1/devices/bad", ""); a.status != http.StatusNotFound {
		t.Errorf("a refused device is there: %d %s", a.status, a.body)
	}
	w.tooLarge()
}

func names(p producer.Problem, field string) bool {
	for _, f := range p.Errors {
		if f.Field == field {
			return true
		}
	}
	return false
}

// tooLarge sends a campaign whose payload fits no provider: each delivery is rejected before it is sent, and counted.
func (w *world) tooLarge() {
	w.t.Helper()
	w.campaign("demo", strings.Replace(everyone("large"), "Hello", strings.Repeat("x", 5000), 1))
	p := w.ended("demo", "large")
	if p.Planned != uint64(w.devices) || p.Rejected != p.Planned {
		w.t.Errorf("of a payload of 5,000 bytes: %+v", p)
	}
	if sum := w.receipts(); sum.Distinct != 0 || len(sum.ByStatus["apns"]) > 0 {
		w.t.Errorf("it was sent all the same: %+v", sum)
	}
}
