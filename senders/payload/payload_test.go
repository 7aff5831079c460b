package payload

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\t\x00\x1f", "é 漢 🎉", "\xff\xfe cut \xe2\x82", "\u2028<&>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q became %s, which is not JSON: %v", s, b, err)
		}
		reference, _ := json.Marshal(s)
		var want string
		_ = json.Unmarshal(reference, &want)
		if got != want {
			t.Errorf("%q came back as %q, want %q", s, got, want)
		}
	})
}

func TestMerge(t *testing.T) {
	onlyAps := func(key string) bool { return key == "aps" }
	tests := []struct{ name, doc, raw, want string }{
		{"adds", `{"a":"1"}`, `{"b":{"c":2}}`, `{"a":"1","b":{"c":2}}`},
		{"replaces", `{"a":{"x":1,"y":2}}`, `{"a":{"x":3}}`, `{"a":{"x":3}}`},
		{"within", `{"aps":{"alert":"x","badge":1}}`, `{"aps":{"badge":2,"url-args":[]}}`, `{"aps":{"alert":"x","badge":2,"url-args":[]}}`},
		{"within, only one level", `{"aps":{"alert":{"title":"t","body":"b"}}}`, `{"aps":{"alert":{"title":"u"}}}`, `{"aps":{"alert":{"title":"u"}}}`},
		{"another kind replaces", `{"aps":{"badge":1}}`, `{"aps":null}`, `{"aps":null}`},
		{"no HTML escapes", `{"a":"<"}`, `{"b":"&"}`, `{"a":"<","b":"&"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Merge([]byte(tt.doc), []byte(tt.raw), onlyAps)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Merge([]byte(`{}`), []byte(`[]`), onlyAps); err == nil || !strings.Contains(err.Error(), "not a JSON object") {
		t.Errorf("a list was merged: %v", err)
	}
}

func TestExpiryIsWhatRemains(t *testing.T) {
	m, err := message.Compile(&pb.Message{TtlSeconds: 60}, message.Campaign)
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1_800_000_000_500)
	for _, tt := range []struct {
		name    string
		at      time.Time
		seconds int64
		expired bool
	}{
		{"an hour", now.Add(time.Hour), 3600, false},
		{"part of a second", now.Add(300 * time.Millisecond), 1, false},
		{"over", now, 0, true},
		{"not said: the message's", time.UnixMilli(0), 60, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, seconds, err := Expiry(&pb.Delivery{ExpiresAt: tt.at.UnixMilli()}, m, now)
			if seconds != tt.seconds || (err != nil) != tt.expired {
				t.Errorf("got %d s, error %v", seconds, err)
			}
		})
	}
}
