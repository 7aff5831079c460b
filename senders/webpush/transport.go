package webpush

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"

	push "github.com/SherClockHolmes/webpush-go"

	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
)

const (
	// overhead is what encryption adds in webpush-go's reckoning of a record: salt, record size, key (86 bytes, RFC 8188
	// section 2.1), the delimiter and the tag.
	overhead = 86 + 1 + 16
	// padTo hides a payload's exact length without filling each up to 4,096 bytes, as webpush-go does by itself: Mozilla
	// takes no more than about 2.7 kB for Firefox on phones.
	padTo = 256
)

// Send implements senders.Provider: webpush-go encrypts and signs.
func (p *Provider) Send(batch []*senders.Request) {
	a := p.apps[batch[0].Destination.App]
	a.client.Carry(batch, a.post)
}

// post is one request by webpush-go.
func (a *app) post(ctx context.Context, x *exchange.Exchange, r *senders.Request) error {
	x.Prepare = func(h http.Header) { a.vapid.settle(r.Origin, h) }
	ttl, err := strconv.Atoi(r.Field(headerTTL))
	if err != nil {
		return fmt.Errorf("read the request's TTL: %w", err)
	}
	t := r.Delivery.GetTarget().GetWebpush()
	_, err = push.SendNotificationWithContext(
		ctx, r.Plain,
		&push.Subscription{
			Endpoint: r.Origin + r.Path,
			Keys: push.Keys{
				Auth:   base64.RawURLEncoding.EncodeToString(t.GetAuth()),
				P256dh: base64.RawURLEncoding.EncodeToString(t.GetP256Dh()),
			},
		},
		&push.Options{
			HTTPClient:      a.library,
			RecordSize:      recordSize(len(r.Plain)),
			Subscriber:      a.vapid.subscriber,
			VAPIDPublicKey:  a.vapid.public,
			VAPIDPrivateKey: a.vapid.private,
			TTL:             ttl,
			Topic:           r.Field(headerTopic),
			Urgency:         push.Urgency(r.Field(headerUrgency)),
		},
	)
	return err
}

// recordSize is the size that webpush-go is to pad a payload of n bytes to, at most RFC 8030's 4,096.
func recordSize(n int) uint32 {
	padded := (n + overhead + padTo - 1) / padTo * padTo
	return uint32(min(padded, int(push.MaxRecordSize)))
}
