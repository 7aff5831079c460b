package webpush

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
)

// maxTopic is RFC 8030's limit (section 5.4), in characters of base64url.
const maxTopic = 32

// plan is what is the same for all deliveries of a message.
type plan struct {
	message *message.Compiled
	// topic is the message's collapse identity as a Topic, or empty where each delivery has its own.
	topic     string
	overlay   payload.Overlay
	documents *payload.Documents
	// refused is why none of them can be sent, or nil.
	refused *senders.Refusal
}

func newPlan(m *message.Compiled) *plan {
	p := &plan{message: m, topic: topic(m.Message().GetCollapse()), documents: payload.NewDocuments(m, message.Shapes)}
	var err error
	if p.overlay, err = payload.ParseOverlay(m.Message().GetWebpush().GetRaw()); err != nil {
		p.refused = payload.Refuse("bad-message", "webpush.raw: "+err.Error())
	}
	return p
}

// topic has a push service replace what it has not delivered yet.
func topic(collapse string) string {
	if isTopic(collapse) {
		return collapse
	}
	sum := sha256.Sum256([]byte(collapse))
	return base64.RawURLEncoding.EncodeToString(sum[:maxTopic/4*3])
}

// isTopic also accepts none.
func isTopic(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return len(s) <= maxTopic
}

func (p *plan) urgency(class pb.Class) string {
	switch own := p.message.Message().GetWebpush().GetUrgency(); {
	case own != "":
		return own
	case class == pb.Class_CLASS_URGENT:
		return "high"
	default:
		return "normal"
	}
}

// document is what the service worker receives, see the package's documentation, on devices of a locale's place whose
// texts have this shape.
func (p *plan) document(place int, has message.Shape) *payload.Document {
	return p.documents.At(place, int(has), func(o *payload.Object) {
		t, options := p.message.Texts(place), p.message.Message().GetWebpush()
		text := func(key string, bit message.Shape, value message.Template) {
			if has&bit != 0 {
				o.Text(key, value)
			}
		}
		o.ID("id")
		text("title", message.HasTitle, t.Title)
		text("body", message.HasBody, t.Body)
		text("image", message.HasImage, t.Image)
		text("link", message.HasLink, t.Link)
		o.String("icon", options.GetIcon())
		o.String("badge", options.GetBadge())
		o.Flag("require_interaction", options.GetRequireInteraction())
		if collapse := p.message.Message().GetCollapse(); collapse != "" {
			o.String("tag", collapse)
		} else {
			o.ID("tag")
		}
		data := o.Object("data")
		for key, value := range p.message.DataTexts() {
			data.Text(key, value)
		}
		o.Lay(p.overlay, func(string) bool { return false })
	})
}
