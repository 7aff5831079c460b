package apns

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/wire"
)

const (
	headerID         = "apns-id"
	headerCollapseID = "apns-collapse-id"
	headerExpiration = "apns-expiration"
	headerPriority   = "apns-priority"
	headerPushType   = "apns-push-type"
	headerTopic      = "apns-topic"
)

const (
	maxPayload     = 4096
	maxPayloadVoIP = 5120
)

// pushType is what a value of apns-push-type brings with it.
type pushType struct {
	// suffix goes to the bundle id in apns-topic.
	suffix string
	// silent types show nothing by themselves: the message's title and body are for its other platforms.
	silent bool
}

var pushTypes = map[string]pushType{
	"alert":        {},
	"background":   {silent: true},
	"complication": {suffix: ".complication", silent: true},
	"controls":     {suffix: ".push-type.controls", silent: true},
	"fileprovider": {suffix: ".pushkit.fileprovider", silent: true},
	"liveactivity": {suffix: ".push-type.liveactivity"},
	"location":     {suffix: ".location-query", silent: true},
	"mdm":          {silent: true},
	"pushtotalk":   {suffix: ".voip-ptt"},
	"voip":         {suffix: ".voip"},
	"widgets":      {suffix: ".push-type.widgets", silent: true},
}

// Encode implements senders.Provider. The payload has the message's title, body and options under aps, and its data, link
// and image beside it.
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, err := p.Destination(d)
	if err != nil {
		return err
	}
	o := m.Message().GetApns()
	kind, known := pushTypes[typeOf(o)]
	if !known {
		return payload.Refuse("bad-message", fmt.Sprintf("apns.push_type %q is unknown", o.GetPushType()))
	}
	if r.Fields, err = p.fields(r.Fields[:0], d, m, kind, now); err != nil {
		return err
	}
	if r.Body, err = body(d, m, kind); err != nil {
		return err
	}
	r.Destination, r.Delivery = destination, d
	r.Origin = p.apps[d.GetApp()].environments[destination.Name].base
	r.Path = "/3/device/" + hex.EncodeToString(d.GetTarget().GetApns().GetToken())
	return nil
}

func typeOf(o *pb.ApnsOptions) string {
	if o.GetPushType() == "" {
		return "alert"
	}
	return o.GetPushType()
}

func (p *Provider) fields(to []wire.Field, d *pb.Delivery, m *message.Compiled, kind pushType, now time.Time) ([]wire.Field, error) {
	id, err := payload.ID(d)
	if err != nil {
		return nil, err
	}
	expires, _, err := payload.Expiry(d, m, now)
	if err != nil {
		return nil, err
	}
	o := m.Message().GetApns()
	collapse := m.Message().GetCollapse()
	if collapse == "" {
		collapse = id // hides a repeat of this delivery, and nothing else
	}
	topic := p.topic(d, o, kind)
	if !httpguts.ValidHeaderFieldValue(collapse) || !httpguts.ValidHeaderFieldValue(topic) {
		return nil, payload.Refuse("bad-message", "collapse or topic holds a character that no HTTP header may")
	}
	return append(
		to,
		wire.Field{Name: headerID, Value: id},
		wire.Field{Name: headerCollapseID, Value: collapse},
		// Rounded up: 0 would mean one attempt only, and a time that has passed the same.
		wire.Field{Name: headerExpiration, Value: strconv.FormatInt(expires.Add(time.Second-1).Unix(), 10)},
		wire.Field{Name: headerPriority, Value: priority(o), Kind: wire.Shared},
		wire.Field{Name: headerPushType, Value: typeOf(o), Kind: wire.Shared},
		wire.Field{Name: headerTopic, Value: topic, Kind: wire.Shared},
	), nil
}

// topic is the message's own, or the bundle id of the device or else of the app, with what the push type adds to it.
func (p *Provider) topic(d *pb.Delivery, o *pb.ApnsOptions, kind pushType) string {
	if o.GetTopic() != "" {
		return o.GetTopic()
	}
	bundle := d.GetTarget().GetApns().GetTopic()
	if bundle == "" {
		bundle = p.apps[d.GetApp()].topic
	}
	if strings.HasSuffix(bundle, kind.suffix) {
		return bundle
	}
	return bundle + kind.suffix
}

func priority(o *pb.ApnsOptions) string {
	switch {
	case o.GetPriority() != 0:
		return strconv.FormatUint(uint64(o.GetPriority()), 10)
	case o.GetPushType() == "background":
		return "5" // Apple: 10 is an error
	default:
		return "10"
	}
}

func body(d *pb.Delivery, m *message.Compiled, kind pushType) ([]byte, error) {
	o := m.Message().GetApns()
	content := m.Content(d.GetLocale(), d.GetVariables())
	var w payload.Writer
	w.Open("")
	writeAps(&w, o, content, kind)
	data := m.Data(d.GetVariables())
	if _, own := data["link"]; !own {
		w.String("link", content.Link)
	}
	if _, own := data["image"]; !own {
		w.String("image", content.Image)
	}
	w.Texts(data)
	w.Close()

	out := w.Bytes()
	if len(o.GetRaw()) > 0 {
		merged, err := payload.Merge(out, o.GetRaw(), func(key string) bool { return key == "aps" })
		if err != nil {
			return nil, payload.Refuse("bad-message", "apns.raw: "+err.Error())
		}
		out = merged
	}
	limit := maxPayload
	if o.GetPushType() == "voip" {
		limit = maxPayloadVoIP
	}
	if len(out) > limit {
		return nil, payload.Refuse("payload-too-large", fmt.Sprintf("the payload has %d bytes; APNs takes %d", len(out), limit))
	}
	return out, nil
}

func writeAps(w *payload.Writer, o *pb.ApnsOptions, content message.Content, kind pushType) {
	if o.GetPushType() == "mdm" {
		return // its payload is {"mdm": …}, from raw
	}
	w.Open("aps")
	if !kind.silent && content.Title+content.Body != "" {
		w.Open("alert")
		w.String("title", content.Title)
		w.String("body", content.Body)
		w.Close()
	}
	if o != nil && o.Badge != nil {
		w.Uint("badge", uint64(o.GetBadge()))
	}
	w.String("sound", o.GetSound())
	w.String("category", o.GetCategory())
	w.String("thread-id", o.GetThreadId())
	// An image is fetched by the app's notification service extension, which only a mutable notification wakes.
	if o.GetMutableContent() || content.Image != "" && !kind.silent {
		w.Uint("mutable-content", 1)
	}
	if o.GetContentAvailable() || o.GetPushType() == "background" {
		w.Uint("content-available", 1)
	}
	w.String("interruption-level", o.GetInterruptionLevel())
	w.Float("relevance-score", o.GetRelevanceScore())
	w.Close()
}
