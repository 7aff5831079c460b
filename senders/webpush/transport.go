package webpush

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	push "github.com/SherClockHolmes/webpush-go"

	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/webpush/encrypt"
)

// post is one request by webpush-go, which encrypts and signs.
func (a *app) post(ctx context.Context, x *exchange.Exchange, r *senders.Request) error {
	// The library signs each request anew.
	authorization, err := a.vapid.authorization(r.Origin, time.Now())
	if err != nil {
		return err
	}
	x.Prepare = func(h http.Header) { h.Set("Authorization", authorization) }
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
			RecordSize:      uint32(encrypt.Size(len(r.Plain), a.padding)),
			Subscriber:      strings.TrimPrefix(a.vapid.subject, "mailto:"), // which it puts before all that is not https
			VAPIDPublicKey:  a.vapid.public,
			VAPIDPrivateKey: a.vapid.private,
			TTL:             ttl,
			Topic:           r.Field(headerTopic),
			Urgency:         push.Urgency(r.Field(headerUrgency)),
		},
	)
	return err
}
