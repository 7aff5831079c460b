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
	// origin and prefix are where requests go: https://host[:port], and a gateway's own path.
	origin, prefix string
	// pipe is nil where the library carries all.
	pipe   *exchange.Pipe
	client *exchange.Client
	// library is apns2's client on top of client. Its own token source is unused: it signs under a lock in the send path.
	library *apns2.Client
}

// maxConns bounds a class's connections to an environment: what Apple's 1,000 streams a connection make of the ceiling, and
// as much again for those that it closes.
const maxConns = 4

func newEnvironment(base string, c *tls.Config, piped bool) (*environment, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an https URL such as %s", base, apns2.HostProduction)
	}
	e := &environment{
		origin: "https://" + u.Host, prefix: strings.TrimSuffix(u.EscapedPath(), "/"),
		client: exchange.NewClient(func() *http.Transport { return exchange.HTTP2(c) }, stale),
	}
	if piped {
		e.pipe = exchange.NewPipe(wire.Options{
			Addr: u.Host, TLS: c, Proxy: http.ProxyFromEnvironment, MaxConns: maxConns,
			// Apple: one stream until a connection's first token is accepted. A certificate is accepted with the connection.
			OneUntilAnswered: len(c.Certificates) == 0,
		})
	}
	e.library = &apns2.Client{Host: e.origin + e.prefix, HTTPClient: e.client.HTTP()}
	return e, nil
}

func (e *environment) close() {
	if e.pipe != nil {
		e.pipe.Close()
	}
	e.client.Close()
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
	if e.pipe != nil {
		e.pipe.Send(batch)
		return
	}
	e.client.Carry(batch, e.post)
}

// heed does what an answer asks of the connection or the token, beside what it means for its delivery.
func (p *Provider) heed(r *senders.Request, res *wire.Result, reason string) {
	a := p.apps[r.Destination.App]
	switch {
	case closing(reason):
		if e := a.environments[r.Destination.Name]; e.pipe != nil {
			e.pipe.Retire(r.Delivery.GetClass(), res)
		}
	case reason == apns2.ReasonTooManyProviderTokenUpdates && a.signer != nil:
		a.signer.calm()
	}
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

// stale says that an answer's connection should take no more requests.
func stale(res *wire.Result) bool { return closing(reason(res).Reason) }

// closing are the reasons that speak of the connection. Apple ties one to the key first used on it.
func closing(reason string) bool {
	switch reason {
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
