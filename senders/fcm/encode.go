package fcm

import (
	"fmt"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/payload"
	"github.com/belfry/belfry/senders/wire"
)

// maxPayload is FCM's limit for what a device receives, bytes. Google does not say how it counts: here it is all of the
// message but its target, so that none is refused there that passed here.
const maxPayload = 4096

// Encode implements senders.Provider. Beside the notification goes the data: the message's own, its link under "link",
// and the delivery's id under "belfry_id".
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, err := p.Destination(d)
	if err != nil {
		return err
	}
	var buf [payload.IDSize]byte
	id, err := payload.AppendID(buf[:0], d)
	if err != nil {
		return err
	}
	_, seconds, err := payload.Expiry(d, m, now)
	if err != nil {
		return err
	}
	plan := message.Derived(m, pb.Platform_PLATFORM_FCM, newPlan)
	if plan.refused != nil {
		return plan.refused
	}
	vars := d.GetVariables()
	place := m.Locale(d.GetLocale())
	document := plan.document(place, m.Texts(place).Shape(vars), d.GetClass())
	body, n := envelope(r.Body[:0], d.GetTarget().GetFcm(), document, payload.Values{Variables: vars, ID: id, TTL: seconds})
	if n > maxPayload {
		r.Body = nil // and not the capacity: a request is used again
		return payload.Refuse("payload-too-large", fmt.Sprintf("the message has %d bytes; FCM takes %d", n, maxPayload))
	}
	a := p.apps[d.GetApp()]
	r.Destination, r.Delivery, r.Origin, r.Path, r.Body = destination, d, a.origin, a.path, body
	r.Fields = append(r.Fields[:0], wire.Field{Name: "content-type", Value: "application/json", Kind: wire.Shared})
	return nil
}

// envelope appends {"message":{target, document's fields}}, and says how many bytes the document has by itself.
func envelope(b []byte, to *pb.FcmTarget, document *payload.Document, v payload.Values) (body []byte, n int) {
	if to.GetToken() != "" {
		b = payload.AppendString(append(b, `{"message":{"token":`...), to.GetToken())
	} else {
		b = payload.AppendString(append(b, `{"message":{"fid":`...), to.GetFid())
	}
	at := len(b)
	b = document.Append(b, v)
	n = len(b) - at
	b[at] = ',' // in place of its brace: it has fields, data among them, so they follow the target's
	return append(b, '}'), n
}
