package message

import (
	"encoding/json"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Message is the JSON and YAML form of pb.Message. To read it from YAML use yaml.UseJSONUnmarshaler, for the raw fields.
type Message struct {
	Title     string             `json:"title,omitempty" yaml:"title,omitempty" doc:"May hold templates, as body, image, link and the values of data may" example:"Hello {{ attributes.first_name | 'there' }}"`
	Body      string             `json:"body,omitempty" yaml:"body,omitempty"`
	Image     string             `json:"image,omitempty" yaml:"image,omitempty" doc:"An https URL"`
	Link      string             `json:"link,omitempty" yaml:"link,omitempty" doc:"What opens on a tap: a deep link, or for web push a URL"`
	Localized map[string]Content `json:"localized,omitempty" yaml:"localized,omitempty" doc:"By BCP 47 locale; the nearest to the device's wins: fr-CA, then fr, then the message's own. A field left empty is the next nearest's"`
	Data      map[string]string  `json:"data,omitempty" yaml:"data,omitempty" doc:"Handed to the app beside the notification"`
	APNs      *APNs              `json:"apns,omitempty" yaml:"apns,omitempty"`
	FCM       *FCM               `json:"fcm,omitempty" yaml:"fcm,omitempty"`
	WebPush   *WebPush           `json:"webpush,omitempty" yaml:"webpush,omitempty"`
	TTL       string             `json:"ttl,omitempty" yaml:"ttl,omitempty" doc:"How long the message is worth delivering, from launch or acceptance: 1s to 167h, 24h when left out" example:"2h"`
	OnUnknown string             `json:"on_unknown,omitempty" yaml:"on_unknown,omitempty" doc:"What becomes of a request that a provider did not answer: resend (default) or drop"`
	Collapse  string             `json:"collapse,omitempty" yaml:"collapse,omitempty" doc:"Messages with the same value replace each other on the device. At most 64 bytes"`
}

// Content is the part of a message that people read.
type Content struct {
	Title string `json:"title,omitempty" yaml:"title,omitempty"`
	Body  string `json:"body,omitempty" yaml:"body,omitempty"`
	Image string `json:"image,omitempty" yaml:"image,omitempty" doc:"An https URL"`
	Link  string `json:"link,omitempty" yaml:"link,omitempty"`
}

// APNs holds what only Apple's service knows.
type APNs struct {
	PushType          string          `json:"push_type,omitempty" yaml:"push_type,omitempty" doc:"alert (default), background, controls, fileprovider, liveactivity, location, mdm, pushtotalk, voip, widgets or complication"`
	Topic             string          `json:"topic,omitempty" yaml:"topic,omitempty" doc:"The apns-topic header, where it is not the one derived from the app's topic and the push type"`
	Priority          uint32          `json:"priority,omitempty" yaml:"priority,omitempty" doc:"10, 5 or 1; left out: 10, or 5 for background"`
	Sound             string          `json:"sound,omitempty" yaml:"sound,omitempty"`
	Badge             *uint32         `json:"badge,omitempty" yaml:"badge,omitempty" doc:"0 clears it"`
	Category          string          `json:"category,omitempty" yaml:"category,omitempty"`
	ThreadID          string          `json:"thread_id,omitempty" yaml:"thread_id,omitempty"`
	MutableContent    bool            `json:"mutable_content,omitempty" yaml:"mutable_content,omitempty"`
	ContentAvailable  bool            `json:"content_available,omitempty" yaml:"content_available,omitempty"`
	InterruptionLevel string          `json:"interruption_level,omitempty" yaml:"interruption_level,omitempty" doc:"passive, active, time-sensitive or critical"`
	RelevanceScore    float64         `json:"relevance_score,omitempty" yaml:"relevance_score,omitempty" doc:"0 to 1; any number for a live activity"`
	Raw               json.RawMessage `json:"raw,omitempty" yaml:"raw,omitempty" doc:"An object merged into the payload last, key by key at the top level and within aps"`
}

// FCM holds what only Firebase knows.
type FCM struct {
	Priority       string          `json:"priority,omitempty" yaml:"priority,omitempty" doc:"normal or high; left out: high for transactional messages, normal for campaigns"`
	CollapseKey    string          `json:"collapse_key,omitempty" yaml:"collapse_key,omitempty" doc:"FCM keeps at most four distinct keys a device"`
	ChannelID      string          `json:"channel_id,omitempty" yaml:"channel_id,omitempty"`
	Sound          string          `json:"sound,omitempty" yaml:"sound,omitempty"`
	Icon           string          `json:"icon,omitempty" yaml:"icon,omitempty"`
	Color          string          `json:"color,omitempty" yaml:"color,omitempty" example:"#0a84ff"`
	ClickAction    string          `json:"click_action,omitempty" yaml:"click_action,omitempty"`
	AnalyticsLabel string          `json:"analytics_label,omitempty" yaml:"analytics_label,omitempty" doc:"1 to 50 of letters, digits and -_.~%"`
	DataOnly       bool            `json:"data_only,omitempty" yaml:"data_only,omitempty" doc:"Send data only, without a notification"`
	Raw            json.RawMessage `json:"raw,omitempty" yaml:"raw,omitempty" doc:"An object in the form of FCM's Message, merged in last, key by key at the top level and one below"`
}

// WebPush holds what only browsers know.
type WebPush struct {
	Urgency            string          `json:"urgency,omitempty" yaml:"urgency,omitempty" doc:"very-low, low, normal or high; left out: high for transactional messages, normal for campaigns"`
	Icon               string          `json:"icon,omitempty" yaml:"icon,omitempty"`
	Badge              string          `json:"badge,omitempty" yaml:"badge,omitempty"`
	RequireInteraction bool            `json:"require_interaction,omitempty" yaml:"require_interaction,omitempty"`
	Raw                json.RawMessage `json:"raw,omitempty" yaml:"raw,omitempty" doc:"An object merged in last at the top level of the payload that the service worker receives"`
}

var onUnknowns = map[string]pb.OnUnknown{
	"":       pb.OnUnknown_ON_UNKNOWN_UNSPECIFIED,
	"resend": pb.OnUnknown_ON_UNKNOWN_RESEND,
	"drop":   pb.OnUnknown_ON_UNKNOWN_DROP,
}

// Proto checks the message and makes it a record. The error is a Problems with every fault there is. Templates are
// checked by Compile, for that needs to know what the message answers to.
func (m *Message) Proto() (*pb.Message, error) {
	out := &pb.Message{
		Content:   m.content().proto(),
		Data:      m.Data,
		Apns:      m.APNs.proto(),
		Fcm:       m.FCM.proto(),
		Webpush:   m.WebPush.proto(),
		OnUnknown: onUnknowns[m.OnUnknown],
		Collapse:  m.Collapse,
	}
	for tag, c := range m.Localized {
		if out.Localized == nil {
			out.Localized = make(map[string]*pb.Content, len(m.Localized))
		}
		out.Localized[tag] = c.proto()
	}
	if ttl, err := time.ParseDuration(m.TTL); err == nil {
		out.TtlSeconds = uint32(max(0, ttl/time.Second))
	}
	if p := m.check(out); len(p) > 0 {
		return nil, p
	}
	return out, nil
}

// FromProto is the message that Proto made a record of.
func FromProto(p *pb.Message) *Message {
	c := contentFrom(p.GetContent())
	m := &Message{
		Title: c.Title, Body: c.Body, Image: c.Image, Link: c.Link,
		Data:     p.GetData(),
		APNs:     apnsFrom(p.GetApns()),
		FCM:      fcmFrom(p.GetFcm()),
		WebPush:  webpushFrom(p.GetWebpush()),
		Collapse: p.GetCollapse(),
	}
	for tag, l := range p.GetLocalized() {
		if m.Localized == nil {
			m.Localized = make(map[string]Content, len(p.Localized))
		}
		m.Localized[tag] = contentFrom(l)
	}
	if s := p.GetTtlSeconds(); s > 0 {
		m.TTL = (time.Duration(s) * time.Second).String()
	}
	for name, v := range onUnknowns {
		if v == p.GetOnUnknown() {
			m.OnUnknown = name
		}
	}
	return m
}

func (m *Message) content() Content {
	return Content{Title: m.Title, Body: m.Body, Image: m.Image, Link: m.Link}
}

func (c Content) proto() *pb.Content {
	return &pb.Content{Title: c.Title, Body: c.Body, Image: c.Image, Link: c.Link}
}

func contentFrom(c *pb.Content) Content {
	return Content{Title: c.GetTitle(), Body: c.GetBody(), Image: c.GetImage(), Link: c.GetLink()}
}

func (a *APNs) proto() *pb.ApnsOptions {
	if a == nil {
		return nil
	}
	return &pb.ApnsOptions{
		PushType: a.PushType, Topic: a.Topic, Priority: a.Priority,
		Sound: a.Sound, Badge: a.Badge, Category: a.Category, ThreadId: a.ThreadID,
		MutableContent: a.MutableContent, ContentAvailable: a.ContentAvailable,
		InterruptionLevel: a.InterruptionLevel, RelevanceScore: a.RelevanceScore, Raw: a.Raw,
	}
}

func apnsFrom(o *pb.ApnsOptions) *APNs {
	if o == nil {
		return nil
	}
	return &APNs{
		PushType: o.PushType, Topic: o.Topic, Priority: o.Priority,
		Sound: o.Sound, Badge: o.Badge, Category: o.Category, ThreadID: o.ThreadId,
		MutableContent: o.MutableContent, ContentAvailable: o.ContentAvailable,
		InterruptionLevel: o.InterruptionLevel, RelevanceScore: o.RelevanceScore, Raw: o.Raw,
	}
}

func (f *FCM) proto() *pb.FcmOptions {
	if f == nil {
		return nil
	}
	return &pb.FcmOptions{
		Priority: f.Priority, CollapseKey: f.CollapseKey, ChannelId: f.ChannelID, Sound: f.Sound, Icon: f.Icon,
		Color: f.Color, ClickAction: f.ClickAction, AnalyticsLabel: f.AnalyticsLabel, DataOnly: f.DataOnly, Raw: f.Raw,
	}
}

func fcmFrom(o *pb.FcmOptions) *FCM {
	if o == nil {
		return nil
	}
	return &FCM{
		Priority: o.Priority, CollapseKey: o.CollapseKey, ChannelID: o.ChannelId, Sound: o.Sound, Icon: o.Icon,
		Color: o.Color, ClickAction: o.ClickAction, AnalyticsLabel: o.AnalyticsLabel, DataOnly: o.DataOnly, Raw: o.Raw,
	}
}

func (w *WebPush) proto() *pb.WebPushOptions {
	if w == nil {
		return nil
	}
	return &pb.WebPushOptions{
		Urgency: w.Urgency, Icon: w.Icon, Badge: w.Badge, RequireInteraction: w.RequireInteraction, Raw: w.Raw,
	}
}

func webpushFrom(o *pb.WebPushOptions) *WebPush {
	if o == nil {
		return nil
	}
	return &WebPush{
		Urgency: o.Urgency, Icon: o.Icon, Badge: o.Badge, RequireInteraction: o.RequireInteraction, Raw: o.Raw,
	}
}
