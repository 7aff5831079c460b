package fcm

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"google.golang.org/api/option"

	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

// library is firebase's messaging client on top of ours. By itself it would fetch access tokens in the send path, and
// repeat a refused token, a 503 and any network error inside Send for up to seven seconds, out of the destination's sight.
// So the client below it has the token already, and never shows it a failure (see exchange.Exchange).
type library struct {
	client    *exchange.Client
	messaging *messaging.Client
}

func newLibrary(project, base string, config *tls.Config) (*library, error) {
	client := exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) }, exchange.Never)
	// Neither call has anything to do with the network or the context: the project is named and the client given.
	ctx := context.Background()
	fire, err := firebase.NewApp(
		ctx, &firebase.Config{ProjectID: project},
		option.WithHTTPClient(client.HTTP()), option.WithEndpoint(base+"/v1"),
	)
	if err != nil {
		return nil, fmt.Errorf("set up firebase: %w", err)
	}
	m, err := fire.Messaging(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up firebase messaging: %w", err)
	}
	return &library{client: client, messaging: m}, nil
}

// Send implements senders.Provider.
func (p *Provider) Send(batch []*senders.Request) {
	a := p.apps[batch[0].Destination.App]
	authorization, err := a.tokens.authorization()
	if err != nil {
		senders.Fail(batch, err)
		return
	}
	for _, r := range batch {
		r.Authorize(authorization, wire.Shared)
	}
	if a.pipe != nil {
		a.pipe.Send(batch)
		return
	}
	a.library.client.Carry(batch, a.library.post)
}

// post is one request by firebase.
func (l *library) post(ctx context.Context, x *exchange.Exchange, r *senders.Request) error {
	var envelope struct {
		Message messaging.Message `json:"message"`
	}
	if err := json.Unmarshal(r.Body, &envelope); err != nil {
		return errors.New("the message does not have the form of FCM's Message")
	}
	if envelope.Message.Token == "" {
		envelope.Message.Token = "fid" // firebase 4.19 asks for one of the targets that it knows; see Body
	}
	x.Prepare = func(h http.Header) { h.Set("Authorization", r.Field("authorization")) }
	// What was checked against the limit is what goes: firebase would drop what it does not know yet (fid, and parts of
	// fcm.raw) and escape <, > and & for HTML.
	x.Body = r.Body
	_, err := l.messaging.Send(ctx, &envelope.Message)
	return err
}
