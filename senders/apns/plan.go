package apns

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
)

// Limits of the payload, bytes (docs/providers.md, "APNs", 413).
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

// plan is what is the same for all deliveries of a message.
type plan struct {
	message *message.Compiled
	// name is the push type's.
	name     string
	kind     pushType
	priority string
	// limit is how large a payload may be, bytes.
	limit     int
	overlay   payload.Overlay
	documents *payload.Documents
	topics    topics
	// refused is why none of them can be sent, or nil.
	refused *senders.Refusal
}

func newPlan(m *message.Compiled) *plan {
	o := m.Message().GetApns()
	p := &plan{message: m, name: typeOf(o), priority: priority(o), limit: maxPayload}
	if p.name == "voip" {
		p.limit = maxPayloadVoIP
	}
	p.documents = payload.NewDocuments(m, message.Shapes)
	var known bool
	var err error
	p.kind, known = pushTypes[p.name]
	p.overlay, err = payload.ParseOverlay(o.GetRaw())
	switch {
	case !known:
		p.refused = payload.Refuse("bad-message", fmt.Sprintf("apns.push_type %q is unknown", p.name))
	case !httpguts.ValidHeaderFieldValue(m.Message().GetCollapse()):
		p.refused = payload.Refuse("bad-message", "collapse holds a character that no HTTP header may")
	case err != nil:
		p.refused = payload.Refuse("bad-message", "apns.raw: "+err.Error())
	}
	return p
}

func typeOf(o *pb.ApnsOptions) string {
	if o.GetPushType() == "" {
		return "alert"
	}
	return o.GetPushType()
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

// document is the payload for devices of a locale's place whose texts have this shape.
func (p *plan) document(place int, has message.Shape) *payload.Document {
	return p.documents.At(place, int(has), func(o *payload.Object) {
		t := p.message.Texts(place)
		if p.name != "mdm" { // its payload is {"mdm": …}, from raw
			p.writeAps(o.Object("aps"), t, has)
		}
		data := p.message.Message().GetData()
		if _, own := data["link"]; !own && has&message.HasLink != 0 {
			o.Text("link", t.Link)
		}
		if _, own := data["image"]; !own && has&message.HasImage != 0 {
			o.Text("image", t.Image)
		}
		for key, text := range p.message.DataTexts() {
			o.Text(key, text)
		}
		o.Lay(p.overlay, func(key string) bool { return key == "aps" })
	})
}

func (p *plan) writeAps(aps *payload.Object, t *message.Texts, has message.Shape) {
	o := p.message.Message().GetApns()
	if !p.kind.silent && has&(message.HasTitle|message.HasBody) != 0 {
		alert := aps.Object("alert")
		if has&message.HasTitle != 0 {
			alert.Text("title", t.Title)
		}
		if has&message.HasBody != 0 {
			alert.Text("body", t.Body)
		}
	}
	if o != nil && o.Badge != nil {
		aps.Uint("badge", uint64(o.GetBadge()))
	}
	aps.String("sound", o.GetSound())
	aps.String("category", o.GetCategory())
	aps.String("thread-id", o.GetThreadId())
	// An image is fetched by the app's notification service extension, which only a mutable notification wakes.
	if o.GetMutableContent() || has&message.HasImage != 0 && !p.kind.silent {
		aps.Uint("mutable-content", 1)
	}
	if o.GetContentAvailable() || p.name == "background" {
		aps.Uint("content-available", 1)
	}
	aps.String("interruption-level", o.GetInterruptionLevel())
	aps.Float("relevance-score", o.GetRelevanceScore())
}

// topic is the message's own, or the bundle with what the push type adds to it. It reports false when no HTTP header may
// hold it.
func (p *plan) topic(bundle string) (value string, ok bool) {
	if own := p.message.Message().GetApns().GetTopic(); own != "" {
		bundle = own
	}
	for _, t := range p.topics.known() {
		if t.bundle == bundle {
			return t.value, t.ok
		}
	}
	t := topic{bundle: strings.Clone(bundle)} // which may lie in a record: a header table would keep all of that
	t.value = t.bundle
	if p.message.Message().GetApns().GetTopic() == "" && !strings.HasSuffix(bundle, p.kind.suffix) {
		t.value += p.kind.suffix
	}
	t.ok = httpguts.ValidHeaderFieldValue(t.value)
	p.topics.keep(t)
	return t.value, t.ok
}

// topics are what a message has gone out under. They are few: an app's, and where devices have bundles of their own a
// beta's and the like.
type topics struct{ list atomic.Pointer[[]topic] }

type topic struct {
	bundle, value string
	ok            bool
}

// keepTopics bounds the list, which is searched from its beginning.
const keepTopics = 8

func (t *topics) known() []topic {
	if list := t.list.Load(); list != nil {
		return *list
	}
	return nil
}

// keep may lose one to another that is kept at the same time; it will come again.
func (t *topics) keep(one topic) {
	if known := t.known(); len(known) < keepTopics {
		list := append(slices.Clip(known), one)
		t.list.Store(&list)
	}
}
