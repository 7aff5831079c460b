package webpush

import (
	"cmp"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/wire"
)

// Header names, RFC 8030 sections 5.2 to 5.4.
const (
	headerTTL     = "ttl"
	headerTopic   = "topic"
	headerUrgency = "urgency"
)

const (
	// maxPayload is what fits in 4,096 encrypted bytes, which every push service must take (RFC 8030 section 7.2): less
	// 86 bytes of header, the delimiter and the tag of 16 (RFC 8291 section 4).
	maxPayload = 3993
	// maxTopic is RFC 8030's limit, in characters of base64url.
	maxTopic = 32
)

// Encode implements senders.Provider. What it writes is plain; Send encrypts it for the device.
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, origin, path, err := p.resolve(d)
	if err != nil {
		return err
	}
	t := d.GetTarget().GetWebpush()
	if _, err := ecdh.P256().NewPublicKey(t.GetP256Dh()); err != nil || len(t.GetAuth()) != 16 {
		return payload.Refuse("bad-subscription", "its keys are not a point on P-256 and 16 bytes")
	}
	id, err := payload.ID(d)
	if err != nil {
		return err
	}
	// Never 0: Windows refuses that, and it would mean now or never.
	_, seconds, err := payload.Expiry(d, m, now)
	if err != nil {
		return err
	}
	if r.Plain, err = body(d, m, id); err != nil {
		return err
	}
	r.Destination, r.Delivery, r.Origin, r.Path = destination, d, origin, path
	r.Fields = append(
		r.Fields[:0],
		wire.Field{Name: headerTTL, Value: strconv.FormatInt(seconds, 10)},
		wire.Field{Name: headerTopic, Value: topic(d, m)},
		wire.Field{Name: headerUrgency, Value: urgency(m.Message().GetWebpush(), d.GetClass()), Kind: wire.Shared},
	)
	return nil
}

// topic has a push service replace what it has not delivered yet: the message's collapse identity, or else the
// delivery's, which hides repeats only.
func topic(d *pb.Delivery, m *message.Compiled) string {
	collapse := m.Message().GetCollapse()
	switch {
	case collapse == "":
		return base64.RawURLEncoding.EncodeToString(d.GetId())
	case isTopic(collapse):
		return collapse
	default:
		sum := sha256.Sum256([]byte(collapse))
		return base64.RawURLEncoding.EncodeToString(sum[:maxTopic/4*3])
	}
}

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

func urgency(o *pb.WebPushOptions, class pb.Class) string {
	switch {
	case o.GetUrgency() != "":
		return o.GetUrgency()
	case class == pb.Class_CLASS_URGENT:
		return "high"
	default:
		return "normal"
	}
}

// body is what the service worker receives: see the package's documentation.
func body(d *pb.Delivery, m *message.Compiled, id string) ([]byte, error) {
	o := m.Message().GetWebpush()
	content := m.Content(d.GetLocale(), d.GetVariables())
	var w payload.Writer
	w.Open("")
	w.Text("id", id)
	w.String("title", content.Title)
	w.String("body", content.Body)
	w.String("image", content.Image)
	w.String("link", content.Link)
	w.String("icon", o.GetIcon())
	w.String("badge", o.GetBadge())
	w.Flag("require_interaction", o.GetRequireInteraction())
	w.Text("tag", cmp.Or(m.Message().GetCollapse(), id))
	w.Open("data")
	w.Texts(m.Data(d.GetVariables()))
	w.Close()
	w.Close()

	out := w.Bytes()
	if raw := o.GetRaw(); len(raw) > 0 {
		merged, err := payload.Merge(out, raw, func(string) bool { return false })
		if err != nil {
			return nil, payload.Refuse("bad-message", "webpush.raw: "+err.Error())
		}
		out = merged
	}
	if len(out) > maxPayload {
		return nil, payload.Refuse("payload-too-large", fmt.Sprintf("the payload has %d bytes; web push takes %d", len(out), maxPayload))
	}
	return out, nil
}
