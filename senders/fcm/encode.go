package fcm

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
)

// maxPayload is FCM's limit for a message to a device. It is said of what the device receives; the whole of the message
// is counted, so that none is refused there that passed here.
const maxPayload = 4096

// Encode implements senders.Provider. Beside the notification goes the data: the message's own, its link under "link",
// and the delivery's id under "belfry_id".
func (p *Provider) Encode(d *pb.Delivery, m *message.Compiled, now time.Time) (*senders.Request, error) {
	destination, err := p.Destination(d)
	if err != nil {
		return nil, err
	}
	body, err := body(d, m, now)
	if err != nil {
		return nil, err
	}
	return &senders.Request{
		Destination: destination,
		Delivery:    d,
		URL:         p.apps[d.GetApp()].url,
		Header:      http.Header{"Content-Type": {"application/json"}},
		Body:        body,
	}, nil
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
		if out, err = payload.Merge(out, raw, func(string) bool { return true }); err != nil {
			return nil, payload.Refuse("bad-message", "fcm.raw: "+err.Error())
		}
	}
	if len(out) > maxPayload {
		return nil, payload.Refuse("payload-too-large", fmt.Sprintf("the message has %d bytes; FCM takes %d", len(out), maxPayload))
	}
	whole := make([]byte, 0, len(out)+len(`{"message":}`))
	whole = append(whole, `{"message":`...)
	whole = append(whole, out...)
	return append(whole, '}'), nil
}

// write makes FCM's Message (firebase.google.com/docs/reference/fcm/rest/v1/projects.messages).
func write(d *pb.Delivery, m *message.Compiled, id string, seconds int64) []byte {
	o := m.Message().GetFcm()
	content := m.Content(d.GetLocale(), d.GetVariables())
	var w payload.Writer
	w.Open("")
	w.String("token", d.GetTarget().GetFcm().GetToken())
	w.String("fid", d.GetTarget().GetFcm().GetFid())

	data := m.Data(d.GetVariables())
	w.Open("data")
	w.Text("belfry_id", id)
	if _, own := data["link"]; !own {
		w.String("link", content.Link)
	}
	w.Texts(data)
	w.Close()

	if !o.GetDataOnly() {
		w.Open("notification")
		w.String("title", content.Title)
		w.String("body", content.Body)
		w.String("image", content.Image)
		w.Close()
	}
	writeAndroid(&w, o, d.GetClass(), cmp.Or(m.Message().GetCollapse(), id), seconds)
	if o.GetAnalyticsLabel() != "" {
		w.Open("fcm_options")
		w.String("analytics_label", o.GetAnalyticsLabel())
		w.Close()
	}
	w.Close()
	return w.Bytes()
}

func writeAndroid(w *payload.Writer, o *pb.FcmOptions, class pb.Class, tag string, seconds int64) {
	w.Open("android")
	w.String("collapse_key", o.GetCollapseKey())
	w.String("priority", priority(o, class))
	w.String("ttl", strconv.FormatInt(seconds, 10)+"s")
	if !o.GetDataOnly() {
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
