package fcm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/wire"
)

// maxPayload is FCM's limit for what a device receives. Google does not say how it counts: here it is all of the message
// but its target, so that none is refused there that passed here.
const maxPayload = 4096

// Encode implements senders.Provider. Beside the notification goes the data: the message's own, its link under "link",
// and the delivery's id under "belfry_id".
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, err := p.Destination(d)
	if err != nil {
		return err
	}
	if r.Body, err = body(d, m, now); err != nil {
		return err
	}
	a := p.apps[d.GetApp()]
	r.Destination, r.Delivery, r.Origin, r.Path = destination, d, a.origin, a.path
	r.Fields = append(r.Fields[:0], wire.Field{Name: "content-type", Value: "application/json", Kind: wire.Shared})
	return nil
}

func body(d *pb.Delivery, m *message.Compiled, now time.Time) ([]byte, error) {
	id, err := payload.ID(d)
	if err != nil {
		return nil, err
	}
	_, seconds, err := payload.Expiry(d, m, now)
	if err != nil {
		return nil, err
	}
	out := write(d, m, id, seconds)
	if raw := m.Message().GetFcm().GetRaw(); len(raw) > 0 {
		if err := targetless(raw); err != nil {
			return nil, err
		}
		if out, err = payload.Merge(out, raw, func(string) bool { return true }); err != nil {
			return nil, payload.Refuse("bad-message", "fcm.raw: "+err.Error())
		}
	}
	if len(out) > maxPayload {
		return nil, payload.Refuse("payload-too-large", fmt.Sprintf("the message has %d bytes; FCM takes %d", len(out), maxPayload))
	}
	var w payload.Writer
	w.Open("")
	w.Open("message")
	w.String("token", d.GetTarget().GetFcm().GetToken())
	w.String("fid", d.GetTarget().GetFcm().GetFid())
	w.Fields(out)
	w.Close()
	w.Close()
	return w.Bytes(), nil
}

// targetless refuses a raw message that names whom it is for: with a topic, each device's delivery would go to everybody.
func targetless(raw []byte) error {
	var target struct{ Token, FID, Topic, Condition json.RawMessage }
	if err := json.Unmarshal(raw, &target); err != nil {
		return payload.Refuse("bad-message", "fcm.raw is not a JSON object")
	}
	if target.Token != nil || target.FID != nil || target.Topic != nil || target.Condition != nil {
		return payload.Refuse("bad-message", "fcm.raw names a target: leave out token, fid, topic and condition")
	}
	return nil
}

// write makes FCM's Message without its target (firebase.google.com/docs/reference/fcm/rest/v1/projects.messages).
func write(d *pb.Delivery, m *message.Compiled, id string, seconds int64) []byte {
	o := m.Message().GetFcm()
	content := m.Content(d.GetLocale(), d.GetVariables())
	var w payload.Writer
	data := m.Data(d.GetVariables())
	w.Open("")
	w.Open("data")
	w.Text("belfry_id", id)
	if _, own := data["link"]; !own {
		w.String("link", content.Link)
	}
	w.Texts(data)
	w.Close()

	shown := !o.GetDataOnly() && content.Title+content.Body+content.Image != ""
	if shown {
		w.Open("notification")
		w.String("title", content.Title)
		w.String("body", content.Body)
		w.String("image", content.Image)
		w.Close()
	}
	w.Open("android")
	w.String("collapse_key", o.GetCollapseKey())
	w.String("priority", priority(o, d.GetClass()))
	w.String("ttl", strconv.FormatInt(seconds, 10)+"s")
	if shown {
		writeNotification(&w, o, cmp.Or(m.Message().GetCollapse(), id))
	}
	w.Close()
	if o.GetAnalyticsLabel() != "" {
		w.Open("fcm_options")
		w.String("analytics_label", o.GetAnalyticsLabel())
		w.Close()
	}
	w.Close()
	return w.Bytes()
}

// writeNotification is the part that only Android knows.
func writeNotification(w *payload.Writer, o *pb.FcmOptions, tag string) {
	w.Open("notification")
	w.String("icon", o.GetIcon())
	w.String("color", o.GetColor())
	w.String("sound", o.GetSound())
	// The tag and not collapse_key hides a repeat: FCM keeps four collapse keys a device (provider-semantics 2.4).
	w.String("tag", tag)
	w.String("click_action", o.GetClickAction())
	w.String("channel_id", o.GetChannelId())
	w.Close()
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
