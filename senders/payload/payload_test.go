package payload

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\t\x00\x1f", "é 漢 🎉", "\xff\xfe cut \xe2\x82", "\u2028<&>", "0123456789\"abcdef", "plain\x1fplain\x7f~ !"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendString(nil, s)
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

// Every byte at every place of a word.
func TestStringByWords(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			s := strings.Repeat("x", at) + string([]byte{byte(c)}) + strings.Repeat("x", 15-at)
			var got string
			if err := json.Unmarshal(AppendString(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") {
				t.Errorf("byte %#x at %d: %q, %v", c, at, got, err)
			}
			if plain := c >= ' ' && c < 0x80 && c != '"' && c != '\\'; plain8(s) != plain {
				t.Errorf("byte %#x at %d is plain: %v", c, at, !plain)
			}
		}
	}
}

func TestLay(t *testing.T) {
	onlyAps := func(key string) bool { return key == "aps" }
	doc := func() *Object {
		o := &Object{}
		aps := o.Object("aps")
		alert := aps.Object("alert")
		alert.String("title", "t")
		alert.String("body", "b")
		aps.Uint("badge", 1)
		o.String("a", "<")
		o.Object("o").Uint("x", 1)
		return o
	}
	const before = `"aps":{"alert":{"title":"t","body":"b"},"badge":1}`
	tests := []struct{ name, raw, want string }{
		{"nothing", ``, `{` + before + `,"a":"<","o":{"x":1}}`},
		{"null", `null`, `{` + before + `,"a":"<","o":{"x":1}}`},
		{"adds", ` { "b" : { "c" : 2 } } `, `{` + before + `,"a":"<","o":{"x":1},"b":{"c":2}}`},
		{"replaces", `{"o":{"y":3},"a":"&"}`, `{` + before + `,"a":"&","o":{"y":3}}`},
		{"within", `{"aps":{"badge":2,"url-args":[]}}`, `{"aps":{"alert":{"title":"t","body":"b"},"badge":2,"url-args":[]},"a":"<","o":{"x":1}}`},
		{"within, only one level", `{"aps":{"alert":{"title":"u"}}}`, `{"aps":{"alert":{"title":"u"},"badge":1},"a":"<","o":{"x":1}}`},
		{"another kind replaces", `{"aps":null}`, `{"aps":null,"a":"<","o":{"x":1}}`},
		{"an empty object changes nothing", `{"aps":{}}`, `{` + before + `,"a":"<","o":{"x":1}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			overlay, err := ParseOverlay([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			o := doc()
			o.Lay(overlay, onlyAps)
			if diff := cmp.Diff(tt.want, string(o.Document().Append(nil, Values{}))); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, raw := range []string{`[]`, `1`, `{"a"`} {
		if _, err := ParseOverlay([]byte(raw)); err == nil || !strings.Contains(err.Error(), "not a JSON object") {
			t.Errorf("%s was taken: %v", raw, err)
		}
	}
}

// FuzzDocument compares with encoding/json, which is given the rendered texts.
func FuzzDocument(f *testing.F) {
	f.Add("Hi {{ user | 'there' }}", "Ada \"\\\n\u2028 <é🎉>", "k\"")
	f.Add(`{{ user }}{{ "{{" }}`, "", "")
	f.Fuzz(func(t *testing.T, text, value, key string) {
		// Records hold nothing but UTF-8: protobuf sees to it.
		text, value, key = strings.ToValidUTF8(text, ""), strings.ToValidUTF8(value, ""), strings.ToValidUTF8(key, "")
		m, err := message.Compile(&pb.Message{Content: &pb.Content{Title: text}}, message.Campaign)
		if err != nil {
			t.Skip()
		}
		vars := map[string]string{"user": value}
		var o Object
		o.Text(key, m.Texts(0).Title)
		inner := o.Object("inner")
		inner.ID("id")
		inner.TTL("ttl")
		inner.String("plain", value)
		inner.String("empty", "")
		got := o.Document().Append([]byte("before"), Values{Variables: vars, ID: []byte("an-id"), TTL: 90})
		reference := map[string]any{"id": "an-id", "ttl": "90s"}
		if value != "" {
			reference["plain"] = value
		}
		title := m.Content("", vars).Title
		want := map[string]any{key: title, "inner": reference}
		if key == "inner" {
			t.Skip() // twice in one object
		}
		var decoded map[string]any
		if err := json.Unmarshal(got[len("before"):], &decoded); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if diff := cmp.Diff(want, decoded); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDocumentsAreMadeOnce(t *testing.T) {
	m, err := message.Compile(&pb.Message{Localized: map[string]*pb.Content{"fr": {Title: "t"}}}, message.Campaign)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDocuments(m, 2)
	made := 0
	for range 3 {
		for place := range m.Locales() {
			for variant := range 2 {
				want := strconv.Itoa(10*place + variant)
				doc := d.At(place, variant, func(o *Object) { made++; o.String("is", want) })
				if got := string(doc.Append(nil, Values{})); got != `{"is":"`+want+`"}` {
					t.Errorf("place %d, variant %d has %s", place, variant, got)
				}
			}
		}
	}
	if made != 4 {
		t.Errorf("%d were made", made)
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
