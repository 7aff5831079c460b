package producer_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

const (
	urgentFCM  = "send.fcm.urgent"
	urgentAPNs = "send.apns.urgent"
)

const codeMessage = `{"to":{"user":"ada"},"message":{"title":"Your code","body":"{{ data.code }}","ttl":"5m"},"data":{"code":"271828","unused":"x"}}`

func TestMessageGoesToAllDevicesOfAUser(t *testing.T) {
	a := start(t, device("d-1", "ada"), device("d-2", "ada", onAPNs), device("d-3", "bob"))
	got := a.call("POST", "/v1/messages", codeMessage)
	var m producer.MessageAnswer
	got.read(t, &m)
	if got.status != http.StatusAccepted || m.Deliveries["fcm"] != 1 || m.Deliveries["apns"] != 1 || m.ID == "" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for topic, id := range map[string]string{urgentFCM: "d-1", urgentAPNs: "d-2"} {
		r := a.records(1, topic)[0]
		var d pb.Delivery
		if err := proto.Unmarshal(r.Value, &d); err != nil {
			t.Fatal(err)
		}
		want := schemas.DeliveryID("shop", m.ID, id, 0)
		if string(r.Key) != "shop/"+id || !bytes.Equal(d.Id, want[:]) || d.Run != schemas.RunMessages || d.Class != pb.Class_CLASS_URGENT ||
			d.Variables["data.code"] != "271828" || len(d.Variables) != 1 || d.Message.Content.Title != "Your code" ||
			d.ExpiresAt != now.Add(5*time.Minute).UnixMilli() || d.RegisteredAt != now.UnixMilli() || d.Target == nil {
			t.Errorf("%s: got %s %v", topic, r.Key, &d)
		}
	}
}

func TestMessageToAListMeetsEachDeviceOnce(t *testing.T) {
	a := start(t, device("d-1", "ada"), device("d-3", "bob"))
	got := a.call("POST", "/v1/messages", `{"to":[{"user":"ada"},{"device":"d-1"},{"device":"d-3"},{"user":"eve"}],"message":{"title":"hi"}}`)
	var m producer.MessageAnswer
	got.read(t, &m)
	if m.Deliveries["fcm"] != 2 || len(m.Unknown) != 1 || m.Unknown[0].User != "eve" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	p := a.call("POST", "/v1/messages", `{"to":{"user":"eve"},"message":{"title":"hi"}}`).problem(t)
	if p.Status != http.StatusNotFound {
		t.Errorf("nobody: got %d", p.Status)
	}
}

func TestDryRunRendersAndSendsNothing(t *testing.T) {
	a := start(t, device("d-1", "ada"))
	got := a.call("POST", "/v1/messages?dry_run=true", codeMessage)
	var m producer.MessageAnswer
	got.read(t, &m)
	if got.status != http.StatusOK || len(m.Rendered) != 1 || m.Rendered[0].Body != "271828" || m.Rendered[0].Locale != "fr-CA" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	a.none(urgentFCM)
}

func TestMessageFaultsNameTheirFields(t *testing.T) {
	a := start(t, device("d-1", "ada"))
	for body, field := range map[string]string{
		`{"to":{},"message":{"title":"hi"}}`:                                                         "to[0]",
		`{"to":{"user":"a","device":"b"},"message":{"title":"hi"}}`:                                  "to[0]",
		`{"to":{"device":"a#b"},"message":{"title":"hi"}}`:                                           "to[0]",
		`{"to":[],"message":{"title":"hi"}}`:                                                         "to",
		`{"to":[{"user":"a"}` + strings.Repeat(`,{"user":"a"}`, 100) + `],"message":{"title":"hi"}}`: "to",
		`{"to":{"user":"ada"},"message":{"title":"{{ event.name }}"}}`:                               "message.title",
		`{"to":{"user":"ada"},"message":{"title":"{{ user"}}`:                                        "message.title",
		`{"to":{"user":"ada"},"message":{"title":"hi","on_unknown":"maybe"}}`:                        "message.on_unknown",
		`{"to":{"user":"ada"},"message":{"title":"hi"},"data":{"a":1}}`:                              "data.a",
		`{"to":{"user":"ada"},"message":{"title":"hi","titel":"ho"}}`:                                "message.titel",
	} {
		p := a.call("POST", "/v1/messages", body).problem(t)
		if p.Status != http.StatusUnprocessableEntity || len(p.Errors) == 0 || p.Errors[0].Field != field {
			t.Errorf("%.90s:\ngot %d %v, want a fault in %q", body, p.Status, p.Errors, field)
		}
	}
	a.none(urgentFCM, urgentAPNs)
}

func TestUserWithEndlessDevicesIsRefused(t *testing.T) {
	var devices []*pb.Device
	for i := range 501 {
		devices = append(devices, device(fmt.Sprintf("d-%d", i), "ada"))
	}
	a := start(t, devices...)
	if p := a.call("POST", "/v1/messages", codeMessage).problem(t); p.Status != http.StatusUnprocessableEntity || p.Errors[0].Field != "to" {
		t.Errorf("got %d %v", p.Status, p.Errors)
	}
	a.none(urgentFCM)
}

func TestSameKeyIsDoneOnce(t *testing.T) {
	a := start(t, device("d-1", "ada"))
	first := a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: order-17")
	again := a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: order-17")
	if first.status != http.StatusAccepted || again.status != first.status || again.body != first.body ||
		again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" ||
		again.header.Get("Content-Type") != first.header.Get("Content-Type") {
		t.Errorf("got %d %s\nand %d %s %v", first.status, first.body, again.status, again.body, again.header)
	}
	other := a.call("POST", "/v1/messages", strings.Replace(codeMessage, "271828", "314159", 1), "Idempotency-Key: order-17").problem(t)
	if other.Status != http.StatusUnprocessableEntity || other.Type != "urn:belfry:problem:idempotency-reused" {
		t.Errorf("another body: got %d %s", other.Status, other.Type)
	}
	// Keys are each app's own, and a fault is replayed like a success.
	for range 2 {
		p := a.call("POST", "/v1/messages", `{"to":{"user":"ada"},"message":{}}`, "Idempotency-Key: order-18").problem(t)
		if p.Status != http.StatusUnprocessableEntity || p.Type != "urn:belfry:problem:invalid" {
			t.Errorf("a fault: got %d %s", p.Status, p.Type)
		}
	}
	if p := a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: order-17", "Authorization: Bearer "+newsKey).problem(t); p.Status != http.StatusNotFound {
		t.Errorf("another app: got %d", p.Status)
	}
	if n := ends(t, streamtest.Client(t, a.kafka), a.kafka.Topic(urgentFCM)); n != 1 {
		t.Errorf("got %d deliveries, want 1", n)
	}
}

// TestSameKeyAtOnceIsToldToWait holds the first call at Kafka while the second comes.
func TestSameKeyAtOnceIsToldToWait(t *testing.T) {
	k, broker := streamtest.Embedded(t)
	a := serve(t, k, registrytest.Redis(t), device("d-1", "ada"))
	asked, release := make(chan struct{}), make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		broker.SleepControl(func() { <-release })
		return nil, nil, false
	})
	first := make(chan answer, 1)
	go func() { first <- a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: k") }()
	<-asked
	second := a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: k")
	close(release)
	if p := second.problem(t); p.Type != "urn:belfry:problem:idempotency-running" || second.header.Get("Retry-After") == "" {
		t.Errorf("meanwhile: got %d %s", p.Status, p.Type)
	}
	got := <-first
	if again := a.call("POST", "/v1/messages", codeMessage, "Idempotency-Key: k"); got.status != http.StatusAccepted || again.body != got.body {
		t.Errorf("got %d %s and then %d %s", got.status, got.body, again.status, again.body)
	}
}
