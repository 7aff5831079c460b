package producer_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	token  = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
	p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	auth   = "BTBZMqHH6r4Tts7J_aSIgg"
)

func webpush(endpoint, p256dh, auth string) string {
	return fmt.Sprintf(`{"webpush":{"endpoint":%q,"p256dh":%q,"auth":%q}}`, endpoint, p256dh, auth)
}

func TestRegisteredDeviceIsOnKafka(t *testing.T) {
	a := start(t)
	got := a.call("PUT", "/v1/devices/d-1", `{"user":"ada","locale":"fr-CA","time_zone":"Europe/Paris","app_version":"3.2.1",
		"tags":["beta"],"attributes":{"first_name":"Ada","level":12,"paying":true},"apns":{"token":"`+token+`","environment":"sandbox"}}`)
	if got.status != http.StatusAccepted {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	r := a.records(1, schemas.TopicDevices)[0]
	var record pb.DeviceRecord
	if err := proto.Unmarshal(r.Value, &record); err != nil {
		t.Fatal(err)
	}
	d := record.GetDevice()
	if !bytes.Equal(r.Key, schemas.DeviceKey("shop", "d-1")) || d.App != "shop" || d.Id != "d-1" || d.User != "ada" ||
		d.Platform != pb.Platform_PLATFORM_APNS || d.Target.GetApns().Environment != pb.Environment_ENVIRONMENT_SANDBOX ||
		len(d.Target.GetApns().Token) != 32 || d.Attributes["level"].GetNumber() != 12 || d.RegisteredAt != now.UnixMilli() {
		t.Errorf("got %s: %v", r.Key, d)
	}
}

func TestDeviceFaultsNameTheirFields(t *testing.T) {
	const endpoint = "https://updates.push.services.mozilla.com/wpush/v2/gAAAA"
	a := start(t)
	for body, field := range map[string]string{
		`{}`: "",
		`{"apns":{"token":"` + token + `"},"fcm":{"token":"x"}}`:   "",
		`{"apns":{"token":"xyz"}}`:                                 "apns.token",
		`{"apns":{"token":"a1b2"}}`:                                "apns.token",
		`{"apns":{"token":"` + token + `","environment":"test"}}`:  "apns.environment",
		`{"apns":{"token":"` + token + `","topic":"com example"}}`: "apns.topic",
		`{"fcm":{}}`:                                                                   "fcm",
		`{"fcm":{"token":"a","fid":"b"}}`:                                              "fcm",
		`{"fcm":{"token":"a b"}}`:                                                      "fcm.token",
		`{"fcm":{"fid":"a/b"}}`:                                                        "fcm.fid",
		webpush("/wpush", p256dh, auth):                                                "webpush.endpoint",
		webpush("http://example.com/x", p256dh, auth):                                  "webpush.endpoint",
		webpush("https://192.168.1.1/x", p256dh, auth):                                 "webpush.endpoint",
		webpush("https://[::1]/x", p256dh, auth):                                       "webpush.endpoint",
		webpush("https://localhost/x", p256dh, auth):                                   "webpush.endpoint",
		webpush("https://u:p@example.com/x", p256dh, auth):                             "webpush.endpoint",
		webpush("https://e.com/"+strings.Repeat("x", 2048), p256dh, auth):              "webpush.endpoint",
		webpush(endpoint, "!", auth):                                                   "webpush.p256dh",
		webpush(endpoint, "BTBZMqHH6r4Tts7J_aSIgg", auth):                              "webpush.p256dh",
		webpush(endpoint, strings.Replace(p256dh, "Aiw4", "Aiw8", 1), auth):            "webpush.p256dh",
		webpush(endpoint, "B"+strings.Repeat("A", 86), auth):                           "webpush.p256dh",
		webpush(endpoint, p256dh, "BTBZ"):                                              "webpush.auth",
		`{"fcm":{"token":"t"},"platform":"apns"}`:                                      "platform",
		`{"fcm":{"token":"t"},"platform":"pager"}`:                                     "platform",
		`{"fcm":{"token":"t"},"id":"other"}`:                                           "id",
		`{"fcm":{"token":"t"},"user":"a/b"}`:                                           "user",
		`{"fcm":{"token":"t"},"locale":"fr_CA"}`:                                       "locale",
		`{"fcm":{"token":"t"},"time_zone":"Mars/Olympus"}`:                             "time_zone",
		`{"fcm":{"token":"t"},"app_version":"` + strings.Repeat("1", 65) + `"}`:        "app_version",
		`{"fcm":{"token":"t"},"tags":["a","\u0007"]}`:                                  "tags[1]",
		`{"fcm":{"token":"t"},"tags":["a"` + strings.Repeat(`,"a"`, 100) + `]}`:        "tags",
		`{"fcm":{"token":"t"},"attributes":{"a":[1]}}`:                                 "attributes.a",
		`{"fcm":{"token":"t"},"attributes":{"a":"` + strings.Repeat("x", 1025) + `"}}`: "attributes.a",
		`{"fcm":{"token":"t"},"colour":"red"}`:                                         "colour",
		`{"fcm":{"token":7}}`:                                                          "fcm.token",
	} {
		p := a.call("PUT", "/v1/devices/d-1", body).problem(t)
		if p.Status != http.StatusUnprocessableEntity || p.Type != "urn:belfry:problem:invalid" || len(p.Errors) != 1 || p.Errors[0].Field != field {
			t.Errorf("%.90s:\ngot %d %s %v, want a fault in %q", body, p.Status, p.Type, p.Errors, field)
		}
	}
	a.none(schemas.TopicDevices)
}

func TestAllowedHostMayBePlainAndLoopback(t *testing.T) {
	a := start(t)
	body := webpush("http://127.0.0.1:8443/push/1", p256dh, auth)
	if got := a.call("PUT", "/v1/devices/d-1", body); got.status != http.StatusAccepted {
		t.Errorf("the app that allows the host: got %d %s", got.status, got.body)
	}
	got := a.call("PUT", "/v1/devices/d-1", body, "Authorization: Bearer "+newsKey)
	if p := got.problem(t); p.Errors[0].Field != "webpush.endpoint" {
		t.Errorf("another app: got %v", p.Errors)
	}
}

func TestShownDeviceHidesItsTarget(t *testing.T) {
	a := start(t, device("d-1", "ada"))
	got := a.call("GET", "/v1/devices/d-1", "", "Authorization: Bearer "+readKey)
	var d producer.ShownDevice
	got.read(t, &d)
	if got.status != http.StatusOK || d.User != "ada" || d.Locale != "fr-CA" || d.Platform != "fcm" || strings.Contains(got.body, "token-of-d-1") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if p := a.call("GET", "/v1/devices/other", "").problem(t); p.Status != http.StatusNotFound {
		t.Errorf("an unknown device: got %d", p.Status)
	}
	if p := a.call("GET", "/v1/devices/d-1", "", "Authorization: Bearer "+newsKey).problem(t); p.Status != http.StatusNotFound {
		t.Errorf("another app's device: got %d", p.Status)
	}
}

func TestRemovedDeviceIsATombstone(t *testing.T) {
	a := start(t)
	if got := a.call("DELETE", "/v1/devices/d-1", ""); got.status != http.StatusAccepted {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if r := a.records(1, schemas.TopicDevices)[0]; r.Value != nil || !bytes.Equal(r.Key, schemas.DeviceKey("shop", "d-1")) {
		t.Errorf("got %s: %q", r.Key, r.Value)
	}
}
