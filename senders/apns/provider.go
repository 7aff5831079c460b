package apns

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/certificate"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
)

// ceiling is the most requests in flight to one destination: two connections' worth of the 1,000 streams that APNs has
// been seen to allow.
const ceiling = 2000

// Config is an app's credential at Apple: a signing key (.p8) with its ids, or a certificate (.p12).
type Config struct {
	// Key is the .p8 file's content.
	Key    []byte
	KeyID  string
	TeamID string

	// Certificate is the .p12 file's content, in place of Key.
	Certificate []byte
	Password    string

	// Topic is the app's bundle id.
	Topic string
	// URL and SandboxURL replace Apple's own: https://host:port, for a gateway or the simulator.
	URL        string
	SandboxURL string
	// CA is trusted in place of the system's certificates, PEM.
	CA []byte
	// Wire has package wire carry the requests; else apns2 does.
	Wire bool
}

// Provider sends the deliveries of every app that has a credential.
type Provider struct {
	apps    map[string]*app
	signers []*signer
}

var _ senders.Provider = (*Provider)(nil)

// app is one app's credential and its connections to both of Apple's environments.
type app struct {
	topic string
	// signer is nil for an app with a certificate, which needs no token.
	signer       *signer
	environments map[string]*environment
}

const (
	production = schemas.DestinationProduction
	sandbox    = schemas.DestinationSandbox
)

// New makes the provider. It needs no network. The error names every app whose configuration is wrong.
func New(apps map[string]Config, log *slog.Logger) (*Provider, error) {
	p := &Provider{apps: make(map[string]*app, len(apps))}
	signers := make(map[signerKey]*signer)
	var faults []error
	for name, c := range apps {
		a, err := newApp(c, signers, log.With("app", name))
		if err != nil {
			faults = append(faults, fmt.Errorf("app %s: apns: %w", name, err))
			continue
		}
		p.apps[name] = a
	}
	for _, s := range signers {
		p.signers = append(p.signers, s)
	}
	return p, errors.Join(faults...)
}

func newApp(c Config, signers map[signerKey]*signer, log *slog.Logger) (*app, error) {
	config, err := exchange.TLS(c.CA)
	if err != nil {
		return nil, err
	}
	a := &app{topic: c.Topic}
	switch {
	case c.Topic == "":
		return nil, errors.New("topic is missing: give the app's bundle id")
	case len(c.Key) > 0 && len(c.Certificate) > 0:
		return nil, errors.New("there are a key (.p8) and a certificate (.p12): keep one")
	case len(c.Key) > 0:
		if a.signer, err = sharedSigner(c, signers, log); err != nil {
			return nil, err
		}
	case len(c.Certificate) > 0:
		cert, err := certificate.FromP12Bytes(c.Certificate, c.Password)
		if err != nil {
			return nil, fmt.Errorf("read the certificate (.p12): %w: check the file and its password", err)
		}
		config.Certificates = []tls.Certificate{cert}
	default:
		return nil, errors.New("there is no credential: give a key (.p8) or a certificate (.p12)")
	}
	a.environments = make(map[string]*environment, 2)
	for name, base := range map[string]string{
		production: cmp.Or(c.URL, apns2.HostProduction),
		sandbox:    cmp.Or(c.SandboxURL, c.URL, apns2.HostDevelopment),
	} {
		if a.environments[name], err = newEnvironment(base, config, c.Wire); err != nil {
			return nil, fmt.Errorf("url for %s: %w", name, err)
		}
	}
	return a, nil
}

// Platform implements senders.Provider.
func (p *Provider) Platform() pb.Platform { return pb.Platform_PLATFORM_APNS }

// Ceiling implements senders.Provider.
func (p *Provider) Ceiling(senders.Destination) int { return ceiling }

// Rate implements senders.Provider: Apple names none.
func (p *Provider) Rate(senders.Destination) float64 { return 0 }

// Destination implements senders.Provider. It is an app's credential in one of Apple's environments.
func (p *Provider) Destination(d *pb.Delivery) (senders.Destination, error) {
	t := d.GetTarget().GetApns()
	if n := len(t.GetToken()); n == 0 || n > 100 {
		return senders.Destination{}, &senders.Refusal{
			Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-target", Detail: "the target is not an APNs token",
		}
	}
	name := production
	if t.GetEnvironment() == pb.Environment_ENVIRONMENT_SANDBOX {
		name = sandbox
	}
	where := senders.Destination{App: d.GetApp(), Name: name}
	if p.apps[where.App] == nil {
		return where, senders.ErrNoCredential
	}
	return where, nil
}

// Refresh implements senders.Provider.
func (p *Provider) Refresh(d senders.Destination) {
	if s := p.apps[d.App].signer; s != nil {
		s.refuse()
	}
}

// Run implements senders.Provider: it renews the provider tokens before Apple lets them lapse.
func (p *Provider) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range p.signers {
		group.Go(func() error { return s.run(ctx) })
	}
	<-ctx.Done()
	if err := group.Wait(); err != nil {
		return err
	}
	p.close()
	return nil
}

func (p *Provider) close() {
	for _, a := range p.apps {
		for _, e := range a.environments {
			e.close()
		}
	}
}
