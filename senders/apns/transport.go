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
		client: exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) }),
	}
	e.library = &apns2.Client{Host: e.base, HTTPClient: e.client.HTTP()}
	return e, nil
}

// Send implements senders.Provider.
func (p *Provider) Send(ctx context.Context, r *senders.Request) (*senders.Answer, error) {
	a := p.apps[r.Destination.App]
	e := a.environments[r.Destination.Name]
	// apns2 escapes <, > and & for HTML, which could lift a payload over the limit that was checked.
	x := &exchange.Exchange{Body: r.Body, Class: r.Delivery.GetClass()}
	if a.signer != nil {
		token, ok := a.signer.token()
		if !ok {
			return nil, senders.ErrNoToken
		}
		x.Prepare = func(h http.Header) { h.Set("Authorization", "bearer "+token) }
	}
	_, refused := e.library.PushWithContext(x.In(ctx), notification(r))
	answer, err := x.Result(ctx, refused)
	if answer != nil {
		a.heed(e, x, reason(answer).Reason)
	}
	return answer, err
}

// heed does what an answer asks of the connection or the token, beside what it means for its delivery.
func (a *app) heed(e *environment, x *exchange.Exchange, reason string) {
	switch reason {
	case apns2.ReasonShutdown, reasonUnrelatedKey, apns2.ReasonIdleTimeout:
		e.client.Renew(x)
	case apns2.ReasonTooManyProviderTokenUpdates:
		if a.signer != nil {
			a.signer.calm()
		}
	}
}

// notification is the encoded request in apns2's own type.
func notification(r *senders.Request) *apns2.Notification {
	n := &apns2.Notification{
		DeviceToken: path.Base(r.URL),
		ApnsID:      r.Header.Get(headerID),
		CollapseID:  r.Header.Get(headerCollapseID),
		Topic:       r.Header.Get(headerTopic),
		PushType:    apns2.EPushType(r.Header.Get(headerPushType)),
		Payload:     json.RawMessage(r.Body),
	}
	n.Priority, _ = strconv.Atoi(r.Header.Get(headerPriority))
	seconds, _ := strconv.ParseInt(r.Header.Get(headerExpiration), 10, 64)
	n.Expiration = time.Unix(seconds, 0)
	return n
}
