package config

import (
	"context"
	"crypto/tls"
	"maps"
	"os"
	"slices"
	"time"
)

// soon is how early an expiry is warned of: long enough to get a new certificate from Apple.
const soon = 30 * 24 * time.Hour

// checkCredentials reads each app's keys as its lanes will.
func checkCredentials(_ context.Context, c *Config, r *report) {
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			r.fail("tls", "give a certificate and the key it was made for, both in PEM", "%s", err)
		} else {
			checkExpiry(r, "tls.cert_file", pair, time.Now())
		}
	}
	if len(c.Apps) == 0 && c.Runs("producer") {
		r.warn("apps", "add one, with a key: docs/configuration.md", "there is none, so nobody can call the API")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Apps)) {
		path, app := "apps."+name, c.Apps[name]
		if len(app.Keys) == 0 && c.Runs("producer") {
			r.warn(path+".keys", "add a key", "there is none, so nobody can call the API for this app")
		}
		if app.APNs != nil && c.Runs("senders.apns") {
			app.APNs.checkCredential(r, path+".apns", time.Now())
		}
		if app.FCM != nil && c.Runs("senders.fcm") {
			app.FCM.checkCredential(r, path+".fcm")
		}
		if app.WebPush != nil && c.Runs("senders.webpush") {
			app.WebPush.checkCredential(r, path+".webpush")
		}
	}
}

func (a *APNs) checkCredential(r *report, path string, now time.Time) {
	if a.P12File != "" {
		data, err := os.ReadFile(a.P12File)
		if err != nil {
			return // checkFiles has said so
		}
		pair, err := parseP12(data, a.P12Password)
		if err != nil {
			r.fail(path+".p12_file", "correct p12_password; or export the certificate anew with the older encryption, openssl pkcs12 -export -legacy", "%s %s", a.P12File, err)
			return
		}
		checkExpiry(r, path+".p12_file", pair, now)
		return
	}
	data, err := os.ReadFile(a.KeyFile)
	if err != nil {
		return
	}
	if _, err := parseP8(data); err != nil {
		r.fail(path+".key_file", "download the key from Apple's developer account, or make another", "%s %s", a.KeyFile, err)
		return
	}
	r.ok(path+".key_file", "is a token key on P-256")
	for key, id := range map[string]string{"key_id": a.KeyID, "team_id": a.TeamID} {
		if len(id) != 10 {
			r.warn(path+"."+key, "copy it from Apple's developer account", "%q has %d characters; Apple's ids have 10", id, len(id))
		}
	}
}

func checkExpiry(r *report, what string, pair tls.Certificate, now time.Time) {
	const renew = "renew the certificate"
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		r.fail(what, renew, "expired at %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		r.fail(what, "set this machine's clock, or wait", "is valid only from %s", leaf.NotBefore.Format(time.RFC3339))
	case now.Add(soon).After(leaf.NotAfter):
		r.warn(what, renew, "expires at %s", leaf.NotAfter.Format(time.RFC3339))
	default:
		r.ok(what, "is valid until %s", leaf.NotAfter.Format(time.RFC3339))
	}
}

func (f *FCM) checkCredential(r *report, path string) {
	data, err := os.ReadFile(f.ServiceAccountFile)
	if err != nil {
		return
	}
	account, err := parseServiceAccount(data)
	if err != nil {
		r.fail(path+".service_account_file", "download the key anew: Firebase console, Project settings, Service accounts", "%s %s", f.ServiceAccountFile, err)
		return
	}
	r.ok(path+".service_account_file", "is a key of project %s", account.ProjectID)
}

func (w *WebPush) checkCredential(r *report, path string) {
	const mend = "give a pair that was made together; the public one is what the page subscribes with, so keep it if you can"
	public, err := vapidPublic(w.PublicKey)
	if err != nil {
		r.fail(path+".public_key", mend, "%s", err)
		return
	}
	private, err := vapidPrivate(w.PrivateKey)
	if err != nil {
		r.fail(path+".private_key", mend, "%s", err)
		return
	}
	if !private.PublicKey().Equal(public) {
		r.fail(path, mend, "private_key does not belong to public_key")
		return
	}
	r.ok(path, "the VAPID keys are a pair")
}
