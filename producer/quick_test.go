package producer

import (
	"reflect"
	"testing"
)

// FuzzQuickDevice compares quickDevice with encoding/json: what it reads at all, it must read the same.
func FuzzQuickDevice(f *testing.F) {
	for _, line := range []string{
		`{"id":"d-1","user":"u","platform":"apns","locale":"en-GB","app_version":"3.2.1","time_zone":"Europe/Paris","tags":["beta"],"attributes":{"first_name":"Ada","level":12,"paying":true,"x":1.5},"apns":{"token":"a1","environment":"production"}}`,
		` { "op" : "delete" , "id" : "d" } `,
		`{"fcm":{"token":"t"},"webpush":{"endpoint":"e","p256dh":"p","auth":"a"},"tags":[],"attributes":{}}`,
		`{"id":"a","id":"b"}`, `{"id":null}`, `{"id":"\u0041"}`, `{"attributes":{"a":01,"b":-1,"c":1e5,"d":.5,"e":1.}}`, `{"ID":"x"}`, `{"tags":["",""]}`,
		`{"fcm":{"token":"a"},"fcm":{"fid":"b"}}`, `{"attributes":{"a":1},"attributes":{"b":2}}`, `{"tags":["a"],"tags":["b"]}`,
		`{"apns":{"token":"a","token":"b"}}`, `{"attributes":{"a":1,"a":"b"}}`, `{"id":"x"}}`, `{"id":"x",}`, `{,}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow BulkDevice
		if !quickDevice(line, &fast) {
			return
		}
		if problems := decodeLine(line, &slow); len(problems) > 0 {
			t.Fatalf("%q: read quickly, but %v", line, problems)
		}
		if !reflect.DeepEqual(normal(fast), normal(slow)) {
			t.Fatalf("%q: got %+v, want %+v", line, fast, slow)
		}
	})
}

// normal makes no difference between an empty list or object and none.
func normal(d BulkDevice) BulkDevice {
	if len(d.Tags) == 0 {
		d.Tags = nil
	}
	if len(d.Attributes) == 0 {
		d.Attributes = nil
	}
	return d
}

// TestQuickReadsTheUsual makes sure that the quick way is gone at all.
func TestQuickReadsTheUsual(t *testing.T) {
	var d BulkDevice
	line := `{"id":"d-1","user":"Zoë","tags":["beta"],"attributes":{"level":12,"paying":true,"name":"Ada"},"apns":{"token":"a1","environment":"production"}}`
	if !quickDevice([]byte(line), &d) || d.ID != "d-1" || d.User != "Zoë" || d.Attributes["level"] != 12.0 || d.APNs.Token != "a1" {
		t.Errorf("got %+v", d)
	}
}
