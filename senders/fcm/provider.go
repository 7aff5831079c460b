package fcm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/wire"
)

// ceiling is the most requests in flight to one project: ten connections' worth of FCM's 100 streams.
const ceiling = 1000

// maxConns bounds a class's connections to a project: the ceiling's worth, and half as many again for those that are closing.
const maxConns = 15

const defaultURL = "https://fcm.googleapis.com"

// defaultPerMinute is the quota of every Firebase project.
const defaultPerMinute = 600_000

// Config is an app's credential at Firebase.
type Config struct {
	// ServiceAccount is the content of the JSON file with a service account's key.
	ServiceAccount []byte
	// URL replaces Google's own: https://host:port, for a gateway or the simulator.
	URL string
	// TokenURL replaces the service account's token_uri, where access tokens come from.
	TokenURL string
	// CA is trusted in place of the system's certificates, PEM.
	CA []byte
	// PerMinute is the project's quota, requests a minute. 0 means what Google gives every project: 600,000.
	PerMinute int
	// Wire has package wire carry the requests; else firebase does.
	Wire bool
}

// Provider sends the deliveries of every app that has a service account.
type Provider struct {
	apps     map[string]*app
	received received
}

var _ senders.Provider = (*Provider)(nil)

// New makes the provider. It needs no network: access tokens are Run's. The error names every app whose configuration is
// wrong.
func New(apps map[string]Config, log *slog.Logger) (*Provider, error) {
	p := &Provider{apps: make(map[string]*app, len(apps))}
	var faults []error
	for name, c := range apps {
		a, err := newApp(c, log.With("app", name))
		if err != nil {
			faults = append(faults, fmt.Errorf("app %s: fcm: %w", name, err))
			continue
		}
		p.apps[name] = a
	}
	return p, errors.Join(faults...)
}

// app is one app's Firebase project.
type app struct {
	project string
	// origin and path are where its messages go.
	origin, path string
	// rate is its quota, requests a second.
	rate    float64
	tokens  *tokens
	library *library
	// pipe is nil where the library carries all.
	pipe *exchange.Pipe
}

func newApp(c Config, log *slog.Logger) (*app, error) {
	project, err := projectOf(c.ServiceAccount)
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(cmp.Or(c.URL, defaultURL), "/")
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("url %q is not an https URL such as %s", base, defaultURL)
	}
	config, err := exchange.TLS(c.CA)
	if err != nil {
		return nil, err
	}
	a := &app{
		project: project, origin: u.Scheme + "://" + u.Host, path: u.EscapedPath() + "/v1/projects/" + url.PathEscape(project) + "/messages:send",
		rate: float64(cmp.Or(c.PerMinute, defaultPerMinute)) / 60,
	}
	if a.tokens, err = newTokens(c, config, log.With("destination", project)); err != nil {
		return nil, err
	}
	if a.library, err = newLibrary(project, base, config); err != nil {
		return nil, err
	}
	if c.Wire {
		a.pipe = exchange.NewPipe(wire.Options{Addr: u.Host, TLS: config, Proxy: http.ProxyFromEnvironment, MaxConns: maxConns})
	}
	return a, nil
}

func (a *app) close() {
	if a.pipe != nil {
		a.pipe.Close()
	}
	a.library.client.Close()
}

func projectOf(serviceAccount []byte) (string, error) {
	var account struct {
		Type      string `json:"type"`
		ProjectID string `json:"project_id"`
	}
	switch err := json.Unmarshal(serviceAccount, &account); {
	case len(serviceAccount) == 0:
		return "", errors.New("there is no credential: give the service account's JSON file")
	case err != nil:
		return "", errors.New("the service account is not JSON: take the file as the Google Cloud console gave it")
	case account.Type != "service_account" || account.ProjectID == "":
		return "", errors.New(`the JSON is not a service account's (its type is not "service_account", or project_id is missing)`)
	}
	return account.ProjectID, nil
}

// Platform implements senders.Provider.
func (p *Provider) Platform() pb.Platform { return pb.Platform_PLATFORM_FCM }

// Ceiling implements senders.Provider.
func (p *Provider) Ceiling(senders.Destination) int { return ceiling }

// Rate implements senders.Provider: the project's quota.
func (p *Provider) Rate(d senders.Destination) float64 {
	if a := p.apps[d.App]; a != nil {
		return a.rate
	}
	return 0
}

// unconfigured is the destination of an app whose project this process does not know.
const unconfigured = "unconfigured"

// Destination implements senders.Provider. It is the app's Firebase project.
func (p *Provider) Destination(d *pb.Delivery) (senders.Destination, error) {
	if t := d.GetTarget().GetFcm(); (t.GetToken() == "") == (t.GetFid() == "") {
		return senders.Destination{}, &senders.Refusal{
			Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-target", Detail: "the target is not one FCM token or one installation id",
		}
	}
	a := p.apps[d.GetApp()]
	if a == nil {
		return senders.Destination{App: d.GetApp(), Name: unconfigured}, senders.ErrNoCredential
	}
	return senders.Destination{App: d.GetApp(), Name: a.project}, nil
}

// Refresh implements senders.Provider.
func (p *Provider) Refresh(d senders.Destination) { p.apps[d.App].tokens.refuse() }

// Run implements senders.Provider: it fetches each project's access token and renews it before it lapses.
func (p *Provider) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range p.apps {
		group.Go(func() error {
			a.tokens.run(ctx)
			a.close()
			return nil
		})
	}
	return group.Wait()
}
