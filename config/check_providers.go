package config

import (
	"cmp"
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
)

// host is one that lanes connect to.
type host struct{ url, caFile string }

// pushServices are those that nearly all browsers subscribe with.
var pushServices = []string{"https://fcm.googleapis.com", "https://updates.push.services.mozilla.com", "https://web.push.apple.com"}

// checkProviders shakes hands over TLS with every host that the lanes of this process need, but with none on this machine:
// a simulator may well be started later.
func checkProviders(ctx context.Context, c *Config, r *report) {
	hosts := c.hosts()
	reports := make([]report, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		u, err := url.Parse(h.url)
		if err != nil || loopback(u.Hostname()) {
			continue
		}
		wg.Go(func() { checkHost(ctx, &reports[i], u, h.caFile) })
	}
	wg.Wait()
	for _, one := range reports {
		r.findings = append(r.findings, one.findings...)
	}
}

// hosts are each named once, sorted.
func (c *Config) hosts() []host {
	all := make(map[host]bool)
	for _, app := range c.Apps {
		if a := app.APNs; a != nil && c.Runs("senders.apns") {
			all[host{cmp.Or(a.URL, "https://api.push.apple.com"), a.CAFile}] = true
			all[host{cmp.Or(a.SandboxURL, "https://api.sandbox.push.apple.com"), a.CAFile}] = true
		}
		if f := app.FCM; f != nil && c.Runs("senders.fcm") {
			all[host{cmp.Or(f.URL, "https://fcm.googleapis.com"), f.CAFile}] = true
			if tokens := cmp.Or(f.TokenURL, f.tokenURI()); tokens != "" {
				all[host{tokens, f.CAFile}] = true
			}
		}
		if w := app.WebPush; w != nil && c.Runs("senders.webpush") && len(w.AllowHosts) == 0 {
			for _, service := range pushServices {
				all[host{service, w.CAFile}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b host) int {
		return cmp.Or(cmp.Compare(a.url, b.url), cmp.Compare(a.caFile, b.caFile))
	})
}

// tokenURI is empty when the service account cannot be read, which checkCredentials says.
func (f *FCM) tokenURI() string {
	data, err := os.ReadFile(f.ServiceAccountFile)
	if err != nil {
		return ""
	}
	account, err := parseServiceAccount(data)
	if err != nil {
		return ""
	}
	return account.TokenURI
}

func checkHost(ctx context.Context, r *report, u *url.URL, caFile string) {
	pool, err := loadCA(caFile)
	if err != nil {
		return // checkFiles has said so
	}
	address := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		r.fail(u.Host, "allow connections out to "+address+", and see that the machine trusts its certificate", "cannot be reached: %s", err)
		return
	}
	conn.Close()
	r.ok(u.Host, "answers over TLS")
}
