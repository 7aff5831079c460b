package apns

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

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

const pathPrefix = "/3/device/"

// Encode implements senders.Provider. The payload has the message's title, body and options under aps, and its data, link
// and image beside it.
func (p *Provider) Encode(r *senders.Request, d *pb.Delivery, m *message.Compiled, now time.Time) error {
	destination, err := p.Destination(d)
	if err != nil {
		return err
	}
	expires, _, err := payload.Expiry(d, m, now)
	if err != nil {
		return err
	}
	plan := message.Derived(m, pb.Platform_PLATFORM_APNS, newPlan)
	if plan.refused != nil {
		return plan.refused
	}
	a := p.apps[d.GetApp()]
	e := a.environments[destination.Name]
	if err := a.head(r, d, e.prefix, plan, expires); err != nil {
		return err
	}
	vars := d.GetVariables()
	place := m.Locale(d.GetLocale())
	document := plan.document(place, m.Texts(place).Shape(vars))
	r.Body = document.Append(r.Body[:0], payload.Values{Variables: vars})
	if n := len(r.Body); n > plan.limit {
		r.Body = nil // and not the capacity: a request is used again
		return payload.Refuse("payload-too-large", fmt.Sprintf("the payload has %d bytes; APNs takes %d", n, plan.limit))
	}
	r.Destination, r.Delivery = destination, d
	r.Origin = e.origin
	return nil
}

// head sets the request's path and fields. Their strings lie in r.Text.
func (a *app) head(r *senders.Request, d *pb.Delivery, prefix string, plan *plan, expires time.Time) error {
	bundle := d.GetTarget().GetApns().GetTopic()
	if bundle == "" {
		bundle = a.topic
	}
	topic, ok := plan.topic(bundle)
	if !ok {
		return payload.Refuse("bad-message", "topic holds a character that no HTTP header may")
	}
	b := append(append(r.Text[:0], prefix...), pathPrefix...)
	b = hex.AppendEncode(b, d.GetTarget().GetApns().GetToken())
	idAt := len(b)
	b, err := payload.AppendID(b, d)
	if err != nil {
		return err
	}
	expirationAt := len(b)
	// Rounded up: 0 would mean one attempt only, and a time that has passed the same.
	b = strconv.AppendInt(b, expires.Add(time.Second-1).Unix(), 10)
	r.Text = b
	text := payload.View(b)

	id := text[idAt:expirationAt]
	collapse := plan.message.Message().GetCollapse()
	if collapse == "" {
		collapse = id // hides a repeat of this delivery, and nothing else
	}
	r.Path = text[:idAt]
	r.Fields = append(
		r.Fields[:0],
		wire.Field{Name: headerID, Value: id},
		wire.Field{Name: headerCollapseID, Value: collapse},
		wire.Field{Name: headerExpiration, Value: text[expirationAt:]},
		wire.Field{Name: headerPriority, Value: plan.priority, Kind: wire.Shared},
		wire.Field{Name: headerPushType, Value: plan.name, Kind: wire.Shared},
		wire.Field{Name: headerTopic, Value: topic, Kind: wire.Shared},
	)
	return nil
}
