package fcm

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"firebase.google.com/go/v4/messaging"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// reference is what firebase's own types make of the rendered message, with raw merged in by maps.
func reference(t *testing.T, m *message.Compiled, d *pb.Delivery) map[string]any {
	t.Helper()
	o, c := m.Message().GetFcm(), m.Content(d.GetLocale(), d.GetVariables())
	left := time.UnixMilli(d.GetExpiresAt()).Sub(now).Truncate(time.Second)
	out := &messaging.Message{
		Token: d.GetTarget().GetFcm().GetToken(),
		Data:  map[string]string{"belfry_id": id},
		Android: &messaging.AndroidConfig{
			CollapseKey: o.GetCollapseKey(), Priority: cmp.Or(o.GetPriority(), "normal"), TTL: &left,
		},
	}
	if d.GetClass() == pb.Class_CLASS_URGENT {
		out.Android.Priority = cmp.Or(o.GetPriority(), "high")
	}
	if c.Link != "" {
		out.Data["link"] = c.Link
	}
	maps.Copy(out.Data, m.Data(d.GetVariables()))
	if !o.GetDataOnly() && c.Title+c.Body+c.Image != "" {
		out.Notification = &messaging.Notification{Title: c.Title, Body: c.Body, ImageURL: c.Image}
		out.Android.Notification = &messaging.AndroidNotification{
			Icon: o.GetIcon(), Color: o.GetColor(), Sound: o.GetSound(), Tag: cmp.Or(m.Message().GetCollapse(), id),
			ClickAction: o.GetClickAction(), ChannelID: o.GetChannelId(),
		}
	}
	if o.GetAnalyticsLabel() != "" {
		out.FCMOptions = &messaging.FCMOptions{AnalyticsLabel: o.GetAnalyticsLabel()}
	}
	return merged(t, out, o.GetRaw())
}

func merged(t *testing.T, m *messaging.Message, raw []byte) map[string]any {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var doc, over map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &over); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range over {
		below, isObject := doc[key].(map[string]any)
		if above, ok := value.(map[string]any); ok && isObject {
			maps.Copy(below, above)
			continue
		}
		doc[key] = value
	}
	return doc
}

// FuzzEncodeAsLibrary compares the message field by field with what firebase would send of the same. A request is used
// again and again, so that what one leaves in it cannot show in the next.
func FuzzEncodeAsLibrary(f *testing.F) {
	f.Add("Hi {{ user | 'there' }}", "{{ locale }}", "https://x/{{ user }}.png", "{{ user }}", "k", "{{ user }}", "", "", "Ada \"\\\n é🎉", uint16(0))
	f.Add("", "{{ user }}", "{{ user }}", "app://x", "link", "own", "news", `{"android":{"x":{"y":1},"ttl":null},"apns":{"headers":{}}}`, "https://x", uint16(0xffff))
	f.Add("t", "b", "http://x", "", "image", "own", "", `{"data":1,"notification":[]}`, "", uint16(0x2a1))
	p := provider(f, "", nil)
	var mu sync.Mutex
	r := &senders.Request{}
	f.Fuzz(func(t *testing.T, title, body, image, link, key, value, collapse, raw, user string, options uint16) {
		for _, s := range []*string{&title, &body, &image, &link, &key, &value, &collapse, &user} {
			*s = strings.ToValidUTF8(*s, "") // protobuf takes nothing else
		}
		pick := func(bit int, s string) string { return s[:len(s)*int(options>>bit&1)] }
		o := &pb.FcmOptions{
			Priority: pick(0, "high"), CollapseKey: pick(1, "ck"), ChannelId: pick(2, value), Sound: pick(3, title),
			Icon: pick(4, "i"), Color: pick(5, "#0a84ff"), ClickAction: pick(6, "OPEN"), AnalyticsLabel: pick(7, "label"),
			DataOnly: options>>8&1 == 1, Raw: []byte(raw),
		}
		m, err := message.Compile(&pb.Message{
			Content:   &pb.Content{Title: title, Body: body},
			Localized: map[string]*pb.Content{"fr": {Image: image, Link: link}},
			Data:      map[string]string{key: value, "other": title}, Collapse: collapse, Fcm: o,
		}, message.Campaign)
		if err != nil || key == "belfry_id" {
			t.Skip()
		}
		d := delivery()
		d.Variables = map[string]string{"user": user}
		d.ExpiresAt += int64(options)
		d.Locale = pick(9, "fr-CA")
		if options>>10&1 == 1 {
			d.Class = pb.Class_CLASS_URGENT
		}
		mu.Lock()
		defer mu.Unlock()
		if err := p.Encode(r, d, m, now); err != nil {
			var refusal *senders.Refusal
			if !errors.As(err, &refusal) || refusal.Code == "bad-message" && targetless([]byte(raw)) == nil {
				t.Fatalf("refused: %v", err)
			}
			t.Skip()
		}
		var got struct{ Message map[string]any }
		if err := json.Unmarshal(r.Body, &got); err != nil {
			t.Fatalf("%s: %v", r.Body, err)
		}
		if diff := gocmp.Diff(reference(t, m, d), got.Message); diff != "" {
			t.Errorf("(-firebase +ours):\n%s", diff)
		}
	})
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
		Fcm:       &pb.FcmOptions{ChannelId: "offers", Raw: []byte(`{"android":{"restricted_package_name":"p"}}`)},
	},
}

func personal() *pb.Delivery {
	d := delivery()
	d.Target = target(strings.Repeat("token-", 25)) // as long as FCM's are
	d.Locale = "fr-CA"
	d.Variables = map[string]string{"attributes.first_name": "Geneviève", "attributes.points": "1200", "user": "u-12345"}
	return d
}

func BenchmarkEncode(b *testing.B) {
	p := provider(b, "", nil)
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
