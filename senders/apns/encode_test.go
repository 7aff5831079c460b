package apns

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sideshow/apns2/payload"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	ours "github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/wire"
)

// reference is what apns2's builder makes of the rendered message, with raw merged in by maps.
func reference(t *testing.T, m *message.Compiled, d *pb.Delivery) map[string]any {
	t.Helper()
	o, c, data := m.Message().GetApns(), m.Content(d.GetLocale(), d.GetVariables()), m.Data(d.GetVariables())
	p := payload.NewPayload()
	silent := o.GetPushType() != "" && o.GetPushType() != "alert" && o.GetPushType() != "voip"
	if !silent && c.Title != "" {
		p.AlertTitle(c.Title)
	}
	if !silent && c.Body != "" {
		p.AlertBody(c.Body)
	}
	if o != nil && o.Badge != nil {
		p.Badge(int(o.GetBadge()))
	}
	if o.GetSound() != "" {
		p.Sound(o.GetSound())
	}
	p.Category(o.GetCategory()).ThreadID(o.GetThreadId()).InterruptionLevel(payload.EInterruptionLevel(o.GetInterruptionLevel()))
	if o.GetMutableContent() || c.Image != "" && !silent {
		p.MutableContent()
	}
	if o.GetContentAvailable() || o.GetPushType() == "background" {
		p.ContentAvailable()
	}
	if s := o.GetRelevanceScore(); s != 0 {
		p.RelevanceScore(float32(s))
	}
	for key, value := range map[string]string{"link": c.Link, "image": c.Image} {
		if value != "" {
			p.Custom(key, value)
		}
	}
	for key, value := range data {
		p.Custom(key, value)
	}
	return merged(t, decoded(t, p), o.GetRaw())
}

func decoded(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func merged(t *testing.T, doc map[string]any, raw []byte) map[string]any {
	t.Helper()
	var over map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &over); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range over {
		below, isObject := doc[key].(map[string]any)
		if above, ok := value.(map[string]any); ok && isObject && key == "aps" {
			maps.Copy(below, above)
			continue
		}
		doc[key] = value
	}
	return doc
}

// FuzzEncodeAsLibrary compares the payload field by field with what apns2 would send of the same message. A request is
// used again and again, so that what one leaves in it cannot show in the next.
func FuzzEncodeAsLibrary(f *testing.F) {
	f.Add("Hi {{ user | 'there' }}", "{{ locale }}", "https://x/{{ user }}.png", "{{ user }}", "k", "{{ user }}", "s", "", "Ada \"\\\n é🎉", uint16(0))
	f.Add("", "{{ user }}", "{{ user }}", "app://x", "link", "own", "", `{"x":{"y":1},"aps":{"sound":{"critical":1},"alert":null}}`, "https://x", uint16(0x3ff))
	f.Add("t", "b", "http://x", "", "image", "own", "", `{"aps":[]}`, "", uint16(0x2a1))
	p := provider(f, config(f, "", nil))
	var mu sync.Mutex
	r := &senders.Request{}
	f.Fuzz(func(t *testing.T, title, body, image, link, key, value, sound, raw, user string, options uint16) {
		for _, s := range []*string{&title, &body, &image, &link, &key, &value, &sound, &user} {
			*s = strings.ToValidUTF8(*s, "") // protobuf takes nothing else
		}
		bit := func(n int) bool { return options>>n&1 == 1 }
		o := &pb.ApnsOptions{
			Sound: sound, Category: value, ThreadId: key, MutableContent: bit(0), ContentAvailable: bit(1),
			RelevanceScore: float64(options>>10) / 64, // which float32, apns2's, has exactly
			Raw:            []byte(raw),
		}
		o.PushType = []string{"", "alert", "background", "voip"}[options>>2&3]
		if bit(4) {
			o.Badge = proto.Uint32(uint32(options >> 8))
		}
		m, err := message.Compile(&pb.Message{
			Content:   &pb.Content{Title: title, Body: body},
			Localized: map[string]*pb.Content{"fr": {Image: image, Link: link}},
			Data:      map[string]string{key: value, "other": title}, Apns: o,
		}, message.Campaign)
		if err != nil || key == "aps" {
			t.Skip()
		}
		d := delivery()
		d.Variables = map[string]string{"user": user}
		if bit(5) {
			d.Locale = "fr-CA"
		}
		mu.Lock()
		defer mu.Unlock()
		if err := p.Encode(r, d, m, now); err != nil {
			var refusal *senders.Refusal
			if !errors.As(err, &refusal) || refusal.Code == "bad-message" && (raw == "null" || json.Unmarshal([]byte(raw), &map[string]any{}) == nil) {
				t.Fatalf("refused: %v", err)
			}
			t.Skip()
		}
		var got map[string]any
		if err := json.Unmarshal(r.Body, &got); err != nil {
			t.Fatalf("%s: %v", r.Body, err)
		}
		if diff := cmp.Diff(reference(t, m, d), got); diff != "" {
			t.Errorf("(-apns2 +ours):\n%s", diff)
		}
	})
}

// A header table keeps what many requests share for longer than the request's own buffer, or a delivery's record, lives.
func TestSharedFieldsOutliveTheirRequest(t *testing.T) {
	p := provider(t, config(t, "", nil))
	for _, bundle := range []string{"", "com.example.beta"} {
		record := []byte(bundle)
		d := delivery()
		d.Target.GetApns().Topic = ours.View(record)
		r := &senders.Request{}
		if err := p.Encode(r, d, compile(t, &pb.Message{Apns: &pb.ApnsOptions{PushType: "voip"}}), now); err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{record, r.Text} {
			for i := range b {
				b[i] = '#'
			}
		}
		if !strings.HasPrefix(r.Path, "###") {
			t.Fatalf("the path does not lie in the request's text: %s", r.Path)
		}
		shared := 0
		for _, f := range r.Fields {
			if f.Kind == wire.Shared {
				shared++
				if strings.Contains(f.Value, "#") {
					t.Errorf("%s became %s", f.Name, f.Value)
				}
			}
		}
		if shared != 3 {
			t.Errorf("%d fields are shared, want priority, push type and topic", shared)
		}
	}
}

// benchmarks are typical messages: the same for all, and with three variables and a locale.
var benchmarks = map[string]*pb.Message{
	"static": {
		Content: &pb.Content{Title: "Spring sale", Body: "Everything at half its price, this weekend only", Link: "app://offers"},
		Data:    map[string]string{"campaign": "spring"},
	},
	"personal": {
		Content:   &pb.Content{Title: "Hi {{ attributes.first_name | 'there' }}", Body: "You have {{ attributes.points }} points", Link: "app://{{ user }}"},
		Localized: map[string]*pb.Content{"fr": {Title: "Bonjour {{ attributes.first_name }}", Body: "Vous avez {{ attributes.points }} points"}},
		Data:      map[string]string{"campaign": "spring"},
		Apns:      &pb.ApnsOptions{Raw: []byte(`{"aps":{"sound":"default"},"v":1}`)},
	},
}

func personal() *pb.Delivery {
	d := delivery()
	d.Target.GetApns().Token = bytes.Repeat([]byte{0xab}, 32)
	d.Locale = "fr-CA"
	d.Variables = map[string]string{"attributes.first_name": "Geneviève", "attributes.points": "1200", "user": "u-12345"}
	return d
}

func BenchmarkEncode(b *testing.B) {
	p := provider(b, config(b, "", nil))
	for name, m := range benchmarks {
		b.Run(name, func(b *testing.B) {
			d, c, r := personal(), compile(b, m), &senders.Request{}
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Encode(r, d, c, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	// What a transactional message costs, which comes with its delivery and is not seen again.
	b.Run("inline", func(b *testing.B) {
		d, r := personal(), &senders.Request{}
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Encode(r, d, compile(b, benchmarks["static"]), now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
