package message

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const fullJSON = `{
  "title": "Hello {{ attributes.first_name | 'there' }}", "body": "b", "image": "https://cdn.example/i.png", "link": "app://x",
  "localized": {"fr-CA": {"title": "Bonjour"}},
  "data": {"screen": "offers"},
  "apns": {"push_type": "alert", "topic": "com.example.app", "priority": 10, "sound": "s", "badge": 0, "category": "c",
    "thread_id": "t", "mutable_content": true, "content_available": true, "interruption_level": "passive",
    "relevance_score": 0.5, "raw": {"id": 9007199254740993}},
  "fcm": {"priority": "high", "collapse_key": "k", "channel_id": "ch", "sound": "s", "icon": "i", "color": "#0a84ff",
    "click_action": "a", "analytics_label": "l", "data_only": true, "raw": {"android": {}}},
  "webpush": {"urgency": "low", "icon": "i", "badge": "b", "require_interaction": true, "raw": {"x": [1, 2]}},
  "ttl": "2h", "on_unknown": "drop", "collapse": "offer"
}`

func TestProtoHoldsEveryField(t *testing.T) {
	var m Message
	dec := json.NewDecoder(strings.NewReader(fullJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	p, err := m.Proto()
	if err != nil {
		t.Fatal(err)
	}
	assertAllSet(t, p)
	if p.TtlSeconds != 7200 || p.OnUnknown != pb.OnUnknown_ON_UNKNOWN_DROP {
		t.Errorf("ttl %d, on_unknown %v", p.TtlSeconds, p.OnUnknown)
	}
	if got := string(p.Apns.Raw); got != `{"id": 9007199254740993}` {
		t.Errorf("raw = %s: a large number must come through exactly", got)
	}
	back, err := FromProto(p).Proto()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back, protocmp.Transform()); diff != "" {
		t.Errorf("there and back (-want +got):\n%s", diff)
	}
}

func TestYAMLReadsAsJSONDoes(t *testing.T) {
	var fromJSON, fromYAML Message
	if err := json.Unmarshal([]byte(fullJSON), &fromJSON); err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := yaml.Unmarshal([]byte(fullJSON), &tree); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(tree) // block style
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalWithOptions(text, &fromYAML, yaml.Strict(), yaml.UseJSONUnmarshaler()); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want, err := fromJSON.Proto()
	if err != nil {
		t.Fatal(err)
	}
	got, err := fromYAML.Proto()
	if err != nil {
		t.Fatal(err)
	}
	compact(t, want)
	compact(t, got)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-json +yaml):\n%s", diff)
	}
}

func TestProtoNamesEveryFaultAtOnce(t *testing.T) {
	m := Message{
		Image:     "http://cdn.example/i.png",
		Link:      "http://a b/%zz",
		Localized: map[string]Content{"fr_CA": {Title: "x"}, "fr-ca": {Title: "y"}, "francais-": {Image: "ftp://x"}, "de": {}},
		Data:      map[string]string{"from": "", "google.x": "", "gcm_y": "", "belfry_id": "", "aps": "", "": "", "ok": ""},
		APNs:      &APNs{Topic: "a\nb", Priority: 7, InterruptionLevel: "loud", RelevanceScore: 2},
		FCM:       &FCM{Priority: "urgent", Color: "red", AnalyticsLabel: "has space"},
		WebPush:   &WebPush{Urgency: "now"},
		TTL:       "169h", OnUnknown: "maybe", Collapse: strings.Repeat("x", 65),
	}
	want := []string{
		"apns.interruption_level", "apns.priority", "apns.relevance_score", "apns.topic",
		"collapse", "data", "data.aps", "data.belfry_id", "data.from", "data.gcm_y", "data.google.x",
		"fcm.analytics_label", "fcm.color", "fcm.priority", "image", "link",
		"localized.de", "localized.fr_CA", "localized.francais-", "localized.francais-.image",
		"on_unknown", "title", "ttl", "webpush.urgency",
	}
	if diff := cmp.Diff(want, fieldsOf(m.Proto())); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestProtoTakesAndRefuses(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	tests := []struct {
		name string
		m    Message
		want []string // the fields at fault
	}{
		{"a title alone", Message{Title: "t"}, nil},
		{"a body alone", Message{Body: "b"}, nil},
		{"nothing to read", Message{Link: "app://x"}, []string{"title"}},
		{"background", Message{APNs: &APNs{PushType: "background"}}, nil},
		{"data only", Message{FCM: &FCM{DataOnly: true}}, nil},
		{"raw alert", Message{APNs: &APNs{Raw: raw(`{"aps":{"alert":{"loc-key":"x"}}}`)}}, nil},
		{"background at 10", Message{APNs: &APNs{PushType: "background", Priority: 10}}, []string{"apns.priority"}},
		{"background at 5", Message{APNs: &APNs{PushType: "background", Priority: 5}}, nil},
		{"unknown push type", Message{Title: "t", APNs: &APNs{PushType: "alerts"}}, []string{"apns.push_type"}},
		{"live activity score", Message{APNs: &APNs{PushType: "liveactivity", RelevanceScore: 100}}, nil},
		{"raw list", Message{Title: "t", WebPush: &WebPush{Raw: raw(`[]`)}}, []string{"webpush.raw"}},
		{"raw broken", Message{Title: "t", FCM: &FCM{Raw: raw(`{"a":`)}}, []string{"fcm.raw"}},
		{"image by template", Message{Title: "t", Image: "https://{{ attributes.cdn }}/x.png"}, nil},
		{"image is a variable", Message{Title: "t", Image: "{{ attributes.photo }}"}, nil},
		{"http image by template", Message{Title: "t", Image: "http://{{ attributes.cdn }}/x.png"}, []string{"image"}},
		{"image without host", Message{Title: "t", Image: "https:///x.png"}, []string{"image"}},
		{"ttl longest", Message{Title: "t", TTL: "167h"}, nil},
		{"ttl zero", Message{Title: "t", TTL: "0s"}, []string{"ttl"}},
		{"ttl part of a second", Message{Title: "t", TTL: "1500ms"}, []string{"ttl"}},
		{"ttl without unit", Message{Title: "t", TTL: "60"}, []string{"ttl"}},
		{"collapse in a header", Message{Title: "t", Collapse: "a\r\nx: y"}, []string{"collapse"}},
		{"not UTF-8", Message{Title: "t\xff"}, []string{""}},
		{"too large", Message{Title: strings.Repeat("x", MaxSize)}, []string{""}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, fieldsOf(test.m.Proto())); diff != "" {
				t.Errorf("fields at fault (-want +got):\n%s", diff)
			}
		})
	}
}

func fieldsOf(_ *pb.Message, err error) []string {
	var p Problems
	errors.As(err, &p)
	var fields []string
	for _, problem := range p {
		fields = append(fields, problem.Field)
	}
	return fields
}

// assertAllSet fails for a field of the record that nothing in the JSON form fills: a new field of the schema that was
// forgotten here. Zero values that are meant (badge 0) have presence.
func assertAllSet(t *testing.T, p *pb.Message) {
	t.Helper()
	var unset []string
	m := p.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			unset = append(unset, string(f.FullName()))
			continue
		}
		if f.IsMap() || f.Message() == nil {
			continue
		}
		sub := m.Get(f).Message()
		for j := range sub.Descriptor().Fields().Len() {
			if g := sub.Descriptor().Fields().Get(j); !sub.Has(g) {
				unset = append(unset, string(g.FullName()))
			}
		}
	}
	if len(unset) > 0 {
		t.Errorf("not carried over: %v", unset)
	}
}

func compact(t *testing.T, p *pb.Message) {
	t.Helper()
	for _, raw := range []*[]byte{&p.Apns.Raw, &p.Fcm.Raw, &p.Webpush.Raw} {
		var v any
		dec := json.NewDecoder(strings.NewReader(string(*raw)))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		*raw, _ = json.Marshal(v)
	}
}
