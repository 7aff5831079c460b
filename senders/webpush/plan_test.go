package webpush

import (
	"cmp"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

// FuzzPayload: the payload says what the message's own rendering says, whatever is in the texts and the variables.
func FuzzPayload(f *testing.F) {
	f.Add("Hi {{ attributes.name }}", "b", "https://i.example/x", "https://l.example/", "Ada", "", "k", "v", "fr")
	f.Add("{{ attributes.name }}", "{{ attributes.name | \"you\" }}", "{{ attributes.name }}", "", "https://x", "news", "", "\"\\\n\x00", "de-CH")
	f.Add("", "", "http://no", "\u2028<&>", "", "a b", "title", "{{ user }}", "")
	p := provider(f, config())
	f.Fuzz(func(t *testing.T, title, body, image, link, name, collapse, key, value, locale string) {
		for _, s := range []string{title, body, image, link, name, collapse, key, value} {
			if !utf8.ValidString(s) {
				return // a protobuf string is
			}
		}
		source := &pb.Message{
			Content:   &pb.Content{Title: title, Body: body, Image: image, Link: link},
			Localized: map[string]*pb.Content{"fr": {Title: body}, "de": {Body: title}},
			Data:      map[string]string{key: value}, Collapse: collapse,
			Webpush: &pb.WebPushOptions{Icon: link},
		}
		m, err := message.Compile(source, message.Campaign)
		if err != nil {
			return
		}
		d := delivery("https://fcm.googleapis.com/x")
		d.Variables, d.Locale = map[string]string{"attributes.name": name}, locale
		r := &senders.Request{}
		if err := p.Encode(r, d, m, now); err != nil {
			if strings.HasPrefix(err.Error(), "payload-too-large") {
				return
			}
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(r.Plain, &got); err != nil {
			t.Fatalf("%s: %v", r.Plain, err)
		}
		if diff := gocmp.Diff(rendered(m, d), got); diff != "" {
			t.Error(diff)
		}
	})
}

// rendered is the payload by the message's own rendering.
func rendered(m *message.Compiled, d *pb.Delivery) map[string]any {
	content := m.Content(d.GetLocale(), d.GetVariables())
	data := map[string]any{}
	for k, v := range m.Data(d.GetVariables()) {
		data[k] = v
	}
	out := map[string]any{"id": id, "tag": cmp.Or(m.Message().GetCollapse(), id), "data": data}
	for k, v := range map[string]string{
		"title": content.Title, "body": content.Body, "image": content.Image, "link": content.Link, "icon": m.Message().GetWebpush().GetIcon(),
	} {
		if v != "" {
			out[k] = v
		}
	}
	return out
}
