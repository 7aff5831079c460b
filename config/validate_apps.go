package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/belfry/belfry/message"
)

// Scopes are what an API key can allow.
var Scopes = []string{"send", "manage", "read"}

var (
	appName  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

func (c *Config) checkApps(p *Problems) {
	// A key tells its app, so it can belong to one only.
	owners := make(map[string]string)
	c.checkOperators(p, owners)
	for _, name := range slices.Sorted(maps.Keys(c.Apps)) {
		path, app := "apps."+name, c.Apps[name]
		if !appName.MatchString(name) {
			p.add(path, "must be named with 1 to 32 of a-z, 0-9 and -, not - first")
		}
		if app == nil {
			p.add(path, "is empty; give at least a key, or leave the app out")
			continue
		}
		app.checkKeys(p, path, owners)
		app.APNs.check(p, path+".apns")
		app.FCM.check(p, path+".fcm")
		app.WebPush.check(p, path+".webpush")
		app.checkRules(p, path)
		if a := app.AutoPause; a.Outcomes < 0 {
			p.add(path+".auto_pause.outcomes", "is %d; give a number above 0, or leave it out", a.Outcomes)
		} else if a.Percent < 0 || a.Percent > 100 {
			p.add(path+".auto_pause.percent", "is %v; give 0 to 100, or leave it out", a.Percent)
		}
	}
}

func (c *Config) checkOperators(p *Problems, owners map[string]string) {
	names := make(map[string]bool)
	for i, o := range c.Operators {
		at := fmt.Sprintf("operators[%d]", i)
		if o.Name == "" || names[o.Name] {
			p.add(at+".name", "is %q; give each operator's key a name of its own", o.Name)
		}
		names[o.Name] = true
		checkHash(p, at, o.Hash, owners)
	}
}

// checkHash checks a key's hash, and that it is nobody else's.
func checkHash(p *Problems, at, hash string, owners map[string]string) {
	digits, found := strings.CutPrefix(hash, "sha256:")
	digits = strings.ToLower(digits)
	if sum, err := hex.DecodeString(digits); !found || err != nil || len(sum) != 32 {
		p.add(at+".hash", `must be "sha256:" and 64 hexadecimal digits, of: printf %%s "$KEY" | sha256sum`)
	} else if owner, taken := owners[digits]; taken {
		p.add(at+".hash", "is the same key as %s; make another", owner)
	} else {
		owners[digits] = at
	}
}

func (a *App) checkKeys(p *Problems, path string, owners map[string]string) {
	names := make(map[string]bool)
	for i, k := range a.Keys {
		at := fmt.Sprintf("%s.keys[%d]", path, i)
		if k.Name == "" || names[k.Name] {
			p.add(at+".name", "is %q; give each key of an app a name of its own", k.Name)
		}
		names[k.Name] = true
		checkHash(p, at, k.Hash, owners)
		if len(k.Scopes) == 0 {
			p.add(at+".scopes", "is empty; give any of %s", strings.Join(Scopes, ", "))
		}
		p.each(at+".scopes", k.Scopes, Scopes)
	}
}

func (a *APNs) check(p *Problems, path string) {
	if a == nil {
		return
	}
	token, cert := a.KeyFile != "", a.P12File != ""
	switch {
	case token == cert:
		p.add(path, "needs one credential: key_file with key_id and team_id, or p12_file")
	case token && (a.KeyID == "" || a.TeamID == ""):
		p.add(path, "key_file needs key_id and team_id, as Apple's developer account shows them")
	case token && (a.P12Password != "" || a.P12PasswordFile != ""):
		p.add(path, "has a p12 password beside key_file; leave it out")
	case cert && (a.KeyID != "" || a.TeamID != ""):
		p.add(path, "has key_id or team_id beside p12_file; leave them out")
	}
	if a.Topic == "" {
		p.add(path+".topic", "is missing; give the app's bundle id")
	}
	p.url(path+".url", a.URL)
	p.url(path+".sandbox_url", a.SandboxURL)
}

func (f *FCM) check(p *Problems, path string) {
	if f == nil {
		return
	}
	if f.ServiceAccountFile == "" {
		p.add(path+".service_account_file", "is missing; make a key under Service accounts in the Firebase console")
	}
	p.url(path+".url", f.URL)
	p.url(path+".token_url", f.TokenURL)
	if f.PerMinute < 0 {
		p.add(path+".per_minute", "is %d; give the messages a minute that Google allows the project, or leave it out", f.PerMinute)
	}
}

// maxPadding is the size of the largest body that every push service takes, in bytes (RFC 8030 section 7.2).
const maxPadding = 4096

func (w *WebPush) check(p *Problems, path string) {
	if w == nil {
		return
	}
	if _, err := vapidPublic(w.PublicKey); err != nil {
		p.add(path+".public_key", "%s", err)
	}
	if w.PrivateKey == "" && w.PrivateKeyFile == "" {
		p.add(path+".private_key", "is missing; give it, or private_key_file")
	} else if w.PrivateKey != "" {
		if _, err := vapidPrivate(w.PrivateKey); err != nil {
			p.add(path+".private_key", "%s", err)
		}
	}
	if u, err := url.Parse(w.Subject); err != nil || (u.Scheme != "mailto" || !strings.Contains(u.Opaque, "@")) && (u.Scheme != "https" || u.Host == "") {
		p.add(path+".subject", `is %q; must be "mailto:" and an address, or an https URL, where a push service finds you`, w.Subject)
	}
	for i, h := range w.AllowHosts {
		p.address(fmt.Sprintf("%s.allow_hosts[%d]", path, i), h)
	}
	if w.Padding < 0 || w.Padding > maxPadding {
		p.add(path+".padding", "is %d; must be 1 to %d bytes, or left out", w.Padding, maxPadding)
	}
	if w.PerMinute < 0 {
		p.add(path+".per_minute", "is %d; give the messages a minute that each push service may be sent, or leave it out", w.PerMinute)
	}
}

func (a *App) checkRules(p *Problems, path string) {
	names := make(map[string]bool)
	for i, r := range a.Rules {
		at := fmt.Sprintf("%s.rules[%d]", path, i)
		switch {
		case !ruleName.MatchString(r.Name):
			p.add(at+".name", "is %q; must be 1 to 64 letters, digits and ._-, a letter or digit first", r.Name)
		case names[r.Name]:
			p.add(at+".name", "%q is there twice; the accounts are kept by it, so give each rule its own", r.Name)
		}
		names[r.Name] = true
		if n := len(r.Event); n < 1 || n > 128 {
			p.add(at+".event", "must be the event's name, 1 to 128 bytes")
		}
		p.each(at+".platforms", r.Platforms, []string{"apns", "fcm", "webpush"})
		checkMessage(p, at+".message", &r.Message)
	}
}

func checkMessage(p *Problems, path string, m *message.Message) {
	record, err := m.Proto()
	if err == nil {
		_, err = message.Compile(record, message.Rule)
	}
	var faults message.Problems
	if !errors.As(err, &faults) {
		return
	}
	for _, f := range faults {
		at := path
		if f.Field != "" {
			at += "." + f.Field
		}
		p.add(at, "%s", f.Text)
	}
}
