package apns

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/sideshow/apns2"

	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

// environment is one destination: an app's credential in one of Apple's environments, with connections of its own, as
// Apple asks for each team and key. Few are plenty: one serves 1,000 streams, and each class has its own.
type environment struct {
	// base is where requests go, https://host[:port].
	base   string
	client *exchange.Client
	// library is apns2's client on top of client. Its own token source is unused: it signs under a lock in the send path.
	library *apns2.Client
}

func newEnvironment(base string, config *tls.Config) (*environment, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an https URL such as %s", base, apns2.HostProduction)
	}
	e := &environment{
		base:   strings.TrimSuffix(base, "/"),
		client: exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) }, stale),
	}
	e.library = &apns2.Client{Host: e.base, HTTPClient: e.client.HTTP()}
	return e, nil
}

// Send implements senders.Provider.
func (p *Provider) Send(batch []*senders.Request) {
	a := p.apps[batch[0].Destination.App]
	e := a.environments[batch[0].Destination.Name]
	if a.signer != nil {
		authorization, ok := a.signer.authorization()
		if !ok {
			senders.Fail(batch, senders.ErrNoToken)
			return
		}
		for _, r := range batch {
			r.Authorize(authorization, wire.Shared)
		}
	}
	e.client.Carry(batch, e.post)
}

// post is one request by apns2.
func (e *environment) post(ctx context.Context, x *exchange.Exchange, r *senders.Request) error {
	// apns2 escapes <, > and & for HTML, which could lift a payload over the limit that was checked.
	x.Body = r.Body
	if token := r.Field("authorization"); token != "" {
		x.Prepare = func(h http.Header) { h.Set("Authorization", token) }
	}
	_, err := e.library.PushWithContext(ctx, notification(r))
	return err
}

// stale says that an answer's connection should take no more requests. Apple ties a connection to the key first used on it.
func stale(res *wire.Result) bool {
	switch reason(res).Reason {
	case apns2.ReasonShutdown, reasonUnrelatedKey, apns2.ReasonIdleTimeout:
		return true
	}
	return false
}

// notification is the encoded request in apns2's own type.
func notification(r *senders.Request) *apns2.Notification {
	n := &apns2.Notification{
		DeviceToken: path.Base(r.Path),
		ApnsID:      r.Field(headerID),
		CollapseID:  r.Field(headerCollapseID),
		Topic:       r.Field(headerTopic),
		PushType:    apns2.EPushType(r.Field(headerPushType)),
		Payload:     json.RawMessage(r.Body),
	}
	n.Priority, _ = strconv.Atoi(r.Field(headerPriority))
	seconds, _ := strconv.ParseInt(r.Field(headerExpiration), 10, 64)
	n.Expiration = time.Unix(seconds, 0)
	return n
}
