package webpush

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/payload"
)

// ceiling is the most requests in flight to one origin.
const ceiling = 1000

// Config is an app's identity towards push services, and what it may send to.
type Config struct {
	// PublicKey and PrivateKey are the VAPID pair, base64url: 65 and 32 bytes.
	PublicKey  string
	PrivateKey string
	// Subject is where a push service finds whom to ask: mailto:… or https://….
	Subject string
	// AllowHosts may be asked whatever their address, and in plain http: host:port each, or host for port 443.
	AllowHosts []string
	// CA is trusted in place of the system's certificates, PEM.
	CA []byte
	// PerMinute is the most messages a minute that each origin is sent, all instances together. 0 means as many as it takes.
	PerMinute int
	// Padding fills bodies up to a multiple of this many bytes, 1 (not at all) to 4096 (all alike). 0 means 256, which hides a
	// text's exact length and a name in it, and keeps usual messages in two sizes or three. It is not webpush-go's 4096
	// because Mozilla takes no more than about 2.7 kB for Firefox on phones, and because each byte costs the sender, the
	// push service and the phone.
	Padding int
	// Wire has package wire carry what it can, and Belfry encrypt; else webpush-go and net/http do both.
	Wire bool
}

const defaultPadding = 256

// Provider sends the deliveries of every app that has VAPID keys.
type Provider struct {
	apps    map[string]*app
	sealers *sealers
}

var _ senders.Provider = (*Provider)(nil)

// app is one app's keys and its connections, which its origins share: they are many, and most see little.
type app struct {
	vapid   *vapid
	allow   allowed
	origins *origins
	client  *exchange.Client
	library *http.Client
	// clients are nil where the library carries all.
	clients *clients
	// padding is in bytes, see Config.
	padding int
	// rate is requests a second to each origin, 0 for none.
	rate float64
}

// New makes the provider. It needs no network. The error names every app whose configuration is wrong.
func New(apps map[string]Config, _ *slog.Logger) (*Provider, error) {
	p := &Provider{apps: make(map[string]*app, len(apps)), sealers: newSealers()}
	var faults []error
	for name, c := range apps {
		a, err := newApp(c)
		if err != nil {
			faults = append(faults, fmt.Errorf("app %s: webpush: %w", name, err))
			continue
		}
		p.apps[name] = a
	}
	return p, errors.Join(faults...)
}

func newApp(c Config) (*app, error) {
	config, err := exchange.TLS(c.CA)
	if err != nil {
		return nil, err
	}
	a := &app{origins: newOrigins(), padding: cmp.Or(c.Padding, defaultPadding), rate: float64(c.PerMinute) / 60}
	if a.vapid, err = newVapid(c); err != nil {
		return nil, err
	}
	if a.allow, err = newAllowed(c.AllowHosts); err != nil {
		return nil, err
	}
	a.client = exchange.NewClient(func() *http.Transport { return a.allow.transport(config) }, exchange.Never)
	a.library = a.client.HTTP()
	if c.Wire {
		a.clients = newClients(a.allow, config)
	}
	return a, nil
}

// Platform implements senders.Provider.
func (p *Provider) Platform() pb.Platform { return pb.Platform_PLATFORM_WEBPUSH }

// Ceiling implements senders.Provider.
func (p *Provider) Ceiling(senders.Destination) int { return ceiling }

// Rate implements senders.Provider. Push services name none: it is the configuration's.
func (p *Provider) Rate(d senders.Destination) float64 {
	if a := p.apps[d.App]; a != nil {
		return a.rate
	}
	return 0
}

// Destination implements senders.Provider. It is the app's keys at one origin.
func (p *Provider) Destination(d *pb.Delivery) (senders.Destination, error) {
	where, _, _, err := p.resolve(d)
	return where, err
}

// resolve checks the endpoint and gives it in canonical form: its origin, and the rest.
func (p *Provider) resolve(d *pb.Delivery) (where senders.Destination, origin, path string, err error) {
	a := p.apps[d.GetApp()]
	if a == nil {
		return p.unconfigured(d), "", "", senders.ErrNoCredential
	}
	origin, path, err = a.allow.parse(d.GetTarget().GetWebpush().GetEndpoint())
	if err != nil {
		return where, "", "", payload.Refuse("bad-endpoint", err.Error())
	}
	return senders.Destination{App: d.GetApp(), Name: a.origins.name(origin)}, origin, path, nil
}

// unconfigured is the destination of an app without keys here. Of its endpoints only the browsers' own can be told: what
// else it may ask, nobody here knows.
func (p *Provider) unconfigured(d *pb.Delivery) senders.Destination {
	where := senders.Destination{App: d.GetApp(), Name: schemas.DestinationOther}
	if origin, _, err := allowed(nil).parse(d.GetTarget().GetWebpush().GetEndpoint()); err == nil {
		if name, known := schemas.PushService(origin); known {
			where.Name = name
		}
	}
	return where
}

// Refresh implements senders.Provider. VAPID needs none: a refused header is not used again (see Send).
func (p *Provider) Refresh(senders.Destination) {}

// Send implements senders.Provider.
func (p *Provider) Send(batch []*senders.Request) {
	a := p.apps[batch[0].Destination.App]
	if a.clients != nil {
		a.pipe(batch, p.sealers)
		return
	}
	a.client.Carry(batch, a.post)
}

// Run implements senders.Provider. When ctx is done it ends what is in flight.
func (p *Provider) Run(ctx context.Context) error {
	<-ctx.Done()
	p.sealers.close()
	for _, a := range p.apps {
		a.client.Close()
		if a.clients != nil {
			a.clients.close()
		}
	}
	return nil
}
