package webpush

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/webpush/encrypt"
	"github.com/belfry/belfry/senders/wire"
)

// Header names, RFC 8030 sections 5.2 to 5.4 and RFC 8291 section 4.
const (
	headerTTL      = "ttl"
	headerTopic    = "topic"
	headerUrgency  = "urgency"
	headerEncoding = "content-encoding"
	headerType     = "content-type"
)

// Encode implements senders.Provider. What it writes is plain; Send encrypts it for the device.
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, origin, path, err := p.resolve(d)
	if err != nil {
		return err
	}
	t := d.GetTarget().GetWebpush()
	if err := encrypt.Check(t.GetP256Dh(), t.GetAuth()); err != nil {
		return refused(err)
	}
	// Never 0: Windows refuses that, and it would mean now or never.
	_, seconds, err := payload.Expiry(d, m, now)
	if err != nil {
		return err
	}
	plan := message.Derived(m, pb.Platform_PLATFORM_WEBPUSH, newPlan)
	if plan.refused != nil {
		return plan.refused
	}
	id, err := plan.head(r, d, seconds)
	if err != nil {
		return err
	}
	vars := d.GetVariables()
	place := m.Locale(d.GetLocale())
	document := plan.document(place, m.Texts(place).Shape(vars))
	r.Plain = document.Append(r.Plain[:0], payload.Values{Variables: vars, ID: id})
	if n := len(r.Plain); n > encrypt.MaxPlaintext {
		return payload.Refuse("payload-too-large", fmt.Sprintf("the payload has %d bytes; web push takes %d", n, encrypt.MaxPlaintext))
	}
	r.Destination, r.Delivery, r.Origin, r.Path = destination, d, origin, path
	return nil
}

// head sets the request's fields, whose strings lie in r.Text, and gives the delivery's id.
func (p *plan) head(r *senders.Request, d *pb.Delivery, ttl int64) (id []byte, err error) {
	b, err := payload.AppendID(r.Text[:0], d)
	if err != nil {
		return nil, err
	}
	ttlAt := len(b)
	b = strconv.AppendInt(b, ttl, 10)
	topicAt := len(b)
	if p.topic == "" {
		b = base64.RawURLEncoding.AppendEncode(b, d.GetId())
	}
	r.Text = b
	text := payload.View(b)

	topic := wire.Field{Name: headerTopic, Value: p.topic, Kind: wire.Shared}
	if p.topic == "" { // it hides repeats only
		topic.Value, topic.Kind = text[topicAt:], wire.Once
	}
	r.Fields = append(
		r.Fields[:0],
		wire.Field{Name: headerEncoding, Value: "aes128gcm", Kind: wire.Shared},
		wire.Field{Name: headerType, Value: "application/octet-stream", Kind: wire.Shared},
		wire.Field{Name: headerUrgency, Value: p.urgency(d.GetClass()), Kind: wire.Shared},
		topic,
		wire.Field{Name: headerTTL, Value: text[ttlAt:topicAt]},
	)
	return b[:ttlAt], nil
}
