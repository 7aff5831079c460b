package apns

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
)

// Header names in the canonical form of net/http. HTTP/2 sends them in lower case.
const (
	headerID         = "Apns-Id"
	headerCollapseID = "Apns-Collapse-Id"
	headerExpiration = "Apns-Expiration"
	headerPriority   = "Apns-Priority"
	headerPushType   = "Apns-Push-Type"
	headerTopic      = "Apns-Topic"
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
func (p *Provider) Encode(d *pb.Delivery, m *message.Compiled, now time.Time) (*senders.Request, error) {
	destination, err := p.Destination(d)
	if err != nil {
		return nil, err
	}
	o := m.Message().GetApns()
	kind, known := pushTypes[typeOf(o)]
	if !known {
		return nil, payload.Refuse("bad-message", fmt.Sprintf("apns.push_type %q is unknown", o.GetPushType()))
	}
	header, err := p.header(d, m, kind, now)
	if err != nil {
		return nil, err
	}
	body, err := body(d, m, kind)
	if err != nil {
		return nil, err
	}
	return &senders.Request{
		Destination: destination,
		Delivery:    d,
		URL:         p.apps[d.GetApp()].environments[destination.Name].base + "/3/device/" + hex.EncodeToString(d.GetTarget().GetApns().GetToken()),
		Header:      header,
		Body:        body,
	}, nil
}

func typeOf(o *pb.ApnsOptions) string {
	if o.GetPushType() == "" {
		return "alert"
	}
	return o.GetPushType()
}

func (p *Provider) header(d *pb.Delivery, m *message.Compiled, kind pushType, now time.Time) (http.Header, error) {
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
	return http.Header{
		headerID:         {id},
		headerCollapseID: {collapse},
		// Rounded up: 0 would mean one attempt only, and a time that has passed the same.
		headerExpiration: {strconv.FormatInt(expires.Add(time.Second-1).Unix(), 10)},
		headerPriority:   {priority(o)},
		headerPushType:   {typeOf(o)},
		headerTopic:      {topic},
	}, nil
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
