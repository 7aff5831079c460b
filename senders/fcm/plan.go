package fcm

import (
	"encoding/json"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
)

// plan is what is the same for all deliveries of a message.
type plan struct {
	message   *message.Compiled
	overlay   payload.Overlay
	documents *payload.Documents
	// refused is why none of them can be sent, or nil.
	refused *senders.Refusal
}

// variants is how many documents a locale may have: a class's default priority differs.
const variants = 2 * message.Shapes

func newPlan(m *message.Compiled) *plan {
	raw := m.Message().GetFcm().GetRaw()
	p := &plan{message: m, documents: payload.NewDocuments(m, variants), refused: targetless(raw)}
	overlay, err := payload.ParseOverlay(raw)
	if err != nil && p.refused == nil {
		p.refused = payload.Refuse("bad-message", "fcm.raw: "+err.Error())
	}
	p.overlay = overlay
	return p
}

// targetless refuses a raw message that names whom it is for: with a topic, each device's delivery would go to everybody.
func targetless(raw []byte) *senders.Refusal {
	var target struct{ Token, FID, Topic, Condition json.RawMessage }
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &target); err != nil {
		return payload.Refuse("bad-message", "fcm.raw is not a JSON object")
	}
	if target.Token != nil || target.FID != nil || target.Topic != nil || target.Condition != nil {
		return payload.Refuse("bad-message", "fcm.raw names a target: leave out token, fid, topic and condition")
	}
	return nil
}

// document is FCM's Message without its target (firebase.google.com/docs/reference/fcm/rest/v1/projects.messages), for
// devices of a locale's place whose texts have this shape.
func (p *plan) document(place int, has message.Shape, class pb.Class) *payload.Document {
	variant := int(has)
	if class == pb.Class_CLASS_URGENT {
		variant += message.Shapes
	}
	return p.documents.At(place, variant, func(o *payload.Object) { p.write(o, p.message.Texts(place), has, class) })
}

func (p *plan) write(o *payload.Object, t *message.Texts, has message.Shape, class pb.Class) {
	own := p.message.Message().GetFcm()
	p.writeData(o.Object("data"), t, has)
	shown := !own.GetDataOnly() && has&(message.HasTitle|message.HasBody|message.HasImage) != 0
	if shown {
		n := o.Object("notification")
		if has&message.HasTitle != 0 {
			n.Text("title", t.Title)
		}
		if has&message.HasBody != 0 {
			n.Text("body", t.Body)
		}
		if has&message.HasImage != 0 {
			n.Text("image", t.Image)
		}
	}
	android := o.Object("android")
	android.String("collapse_key", own.GetCollapseKey())
	android.String("priority", priority(own, class))
	android.TTL("ttl")
	if shown {
		p.writeNotification(android.Object("notification"), own)
	}
	if own.GetAnalyticsLabel() != "" {
		o.Object("fcm_options").String("analytics_label", own.GetAnalyticsLabel())
	}
	o.Lay(p.overlay, func(string) bool { return true })
}

func (p *plan) writeData(data *payload.Object, t *message.Texts, has message.Shape) {
	data.ID("belfry_id")
	if _, own := p.message.Message().GetData()["link"]; !own && has&message.HasLink != 0 {
		data.Text("link", t.Link)
	}
	for key, text := range p.message.DataTexts() {
		data.Text(key, text)
	}
}

// writeNotification is the part that only Android knows.
func (p *plan) writeNotification(n *payload.Object, own *pb.FcmOptions) {
	n.String("icon", own.GetIcon())
	n.String("color", own.GetColor())
	n.String("sound", own.GetSound())
	// The tag and not collapse_key hides a repeat: FCM keeps four collapse keys a device.
	if collapse := p.message.Message().GetCollapse(); collapse != "" {
		n.String("tag", collapse)
	} else {
		n.ID("tag")
	}
	n.String("click_action", own.GetClickAction())
	n.String("channel_id", own.GetChannelId())
}

func priority(o *pb.FcmOptions, class pb.Class) string {
	switch {
	case o.GetPriority() != "":
		return o.GetPriority()
	case class == pb.Class_CLASS_URGENT:
		return "high"
	default:
		return "normal"
	}
}
