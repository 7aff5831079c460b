package config

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func serviceAccountJSON(t testing.TB, change func(map[string]any)) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	account := map[string]any{
		"type": "service_account", "project_id": "shop-1", "private_key": pkcs8(t, k),
		"client_email": "x@shop-1.iam.gserviceaccount.com", "token_uri": "https://127.0.0.1:1/token",
	}
	if change != nil {
		change(account)
	}
	b, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func vapidPair(t testing.TB) (public string, private Secret) {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(k.PublicKey().Bytes()), Secret(enc.EncodeToString(k.Bytes()))
}

// finding returns the first finding of a key, or one that says there is none.
func finding(findings []Finding, what string) Finding {
	i := slices.IndexFunc(findings, func(f Finding) bool { return f.What == what })
	if i < 0 {
		return Finding{Level: "none"}
	}
	return findings[i]
}

func TestCheckGoodConfiguration(t *testing.T) {
	public, private := vapidPair(t)
	c := Default()
	c.Instance = "i"
	c.Apps = map[string]*App{"shop": {
		Keys: []Key{{Name: "k"}},
		APNs: &APNs{
			KeyFile: write(t, "k.p8", pkcs8(t, ecKey(t, elliptic.P256()))), KeyID: "ABCDE12345", TeamID: "TEAM123456",
			Topic: "com.example", URL: "https://127.0.0.1:1", SandboxURL: "https://127.0.0.1:1",
		},
		FCM:     &FCM{ServiceAccountFile: write(t, "sa.json", serviceAccountJSON(t, nil)), URL: "https://localhost:1"},
		WebPush: &WebPush{PublicKey: public, PrivateKey: private, Subject: "mailto:ops@example.com", AllowHosts: []string{"127.0.0.1:1"}},
	}}
	findings := Check(context.Background(), c)
	for _, f := range findings {
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
		if strings.Contains(f.Detail, private.Reveal()) {
			t.Error("a key shows")
		}
	}
	for _, what := range []string{"apps.shop.apns.key_file", "apps.shop.fcm.service_account_file", "apps.shop.webpush", "kafka", "redis"} {
		if f := finding(findings, what); f.Level != OK {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

func TestCheckCredentials(t *testing.T) {
	public, private := vapidPair(t)
	other, _ := vapidPair(t)
	p8 := func(text string) *App {
		return &App{APNs: &APNs{KeyFile: write(t, "k.p8", text), KeyID: "ABCDE12345", TeamID: "TEAM123456"}}
	}
	p12 := func(path, password string) *App {
		return &App{APNs: &APNs{P12File: path, P12Password: Secret(password)}}
	}
	account := func(text string) *App { return &App{FCM: &FCM{ServiceAccountFile: write(t, "sa.json", text)}} }
	set := func(key, value string) string {
		return serviceAccountJSON(t, func(m map[string]any) { m[key] = value })
	}
	tests := []struct {
		name, what string
		app        *App
		level      Level
		detail     string
	}{
		{"p8", "apns.key_file", p8(pkcs8(t, ecKey(t, elliptic.P256()))), OK, "token key"},
		{"p8 on another curve", "apns.key_file", p8(pkcs8(t, ecKey(t, elliptic.P384()))), Fail, "P-384"},
		{"p8 is text", "apns.key_file", p8("hello"), Fail, "is not a .p8 key"},
		{"short id", "apns.key_id", &App{APNs: &APNs{KeyFile: write(t, "k.p8", pkcs8(t, ecKey(t, elliptic.P256()))), KeyID: "X", TeamID: "TEAM123456"}}, Warn, `"X" has 1`},
		{"p12", "apns.p12_file", p12("testdata/push.p12", "open"), OK, "is valid until 21"},
		{"p12 password", "apns.p12_file", p12("testdata/push.p12", "wrong"), Fail, "password"},
		{"p12 is text", "apns.p12_file", p12(write(t, "x.p12", "hello"), ""), Fail, "is not a .p12"},
		{"service account", "fcm.service_account_file", account(serviceAccountJSON(t, nil)), OK, "project shop-1"},
		{"not JSON", "fcm.service_account_file", account("{"), Fail, "is not JSON"},
		{"another type", "fcm.service_account_file", account(set("type", "authorized_user")), Fail, "authorized_user"},
		{"no project", "fcm.service_account_file", account(set("project_id", "")), Fail, "lacks"},
		{"not a key", "fcm.service_account_file", account(set("private_key", "x")), Fail, "not PEM"},
		{"EC key", "fcm.service_account_file", account(set("private_key", pkcs8(t, ecKey(t, elliptic.P256())))), Fail, "not an RSA key"},
		{"pair", "webpush", &App{WebPush: &WebPush{PublicKey: public, PrivateKey: private}}, OK, "pair"},
		{"no pair", "webpush", &App{WebPush: &WebPush{PublicKey: other, PrivateKey: private}}, Fail, "does not belong"},
		{"no scalar", "webpush.private_key", &App{WebPush: &WebPush{PublicKey: public, PrivateKey: "AAAA"}}, Fail, "scalar"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Apps = map[string]*App{"a": test.app}
			var r report
			checkCredentials(context.Background(), c, &r)
			f := finding(r.findings, "apps.a."+test.what)
			if f.Level != test.level || !strings.Contains(f.Detail, test.detail) || (f.Level != OK) != (f.Mend != "") {
				t.Errorf("got %+v, want %s … %s", f, test.level, test.detail)
			}
		})
	}
}

func TestCheckExpiry(t *testing.T) {
	data, err := os.ReadFile("testdata/push.p12")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := parseP12(data, "open")
	if err != nil {
		t.Fatal(err)
	}
	end := pair.Leaf.NotAfter
	for now, want := range map[time.Time]Level{
		end.Add(time.Hour):                  Fail,
		end.Add(-soon / 2):                  Warn,
		end.Add(-2 * soon):                  OK,
		pair.Leaf.NotBefore.Add(-time.Hour): Fail,
	} {
		var r report
		checkExpiry(&r, "x", pair, now)
		if r.findings[0].Level != want {
			t.Errorf("at %s: %+v, want %s", now, r.findings[0], want)
		}
	}
}

func TestCheckFiles(t *testing.T) {
	c := Default()
	open := write(t, "open.p8", "x")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Apps = map[string]*App{"a": {
		APNs:    &APNs{KeyFile: open, CAFile: write(t, "ca.pem", "no certificate")},
		FCM:     &FCM{ServiceAccountFile: filepath.Join(t.TempDir(), "none.json")},
		WebPush: &WebPush{CAFile: t.TempDir()},
	}}
	c.TLS.KeyFile = write(t, "key.pem", "x")
	check := func() []Finding {
		var r report
		checkFiles(context.Background(), c, &r)
		return r.findings
	}
	for what, want := range map[string]Level{
		"apps.a.apns.key_file": Warn, "apps.a.apns.ca_file": OK, "apps.a.fcm.service_account_file": Fail,
		"apps.a.webpush.ca_file": Fail, "tls.key_file": OK,
	} {
		if f := finding(check(), what); f.Level != want {
			t.Errorf("%s: %+v, want %s", what, f, want)
		}
	}
	if n := len(slices.DeleteFunc(check(), func(f Finding) bool { return f.What != "apps.a.apns.ca_file" || f.Level != Fail })); n != 1 {
		t.Error("a CA file without a certificate passes")
	}
	c.Roles = []string{"producer"}
	if f := finding(check(), "apps.a.fcm.service_account_file"); f.Level != "none" {
		t.Errorf("a process without lanes needs no credential: %+v", f)
	}
}

func TestCheckHost(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	var r report
	checkHost(t.Context(), &r, u, ca)
	checkHost(t.Context(), &r, u, "")
	server.Close()
	checkHost(t.Context(), &r, u, ca)
	for i, want := range []Level{OK, Fail, Fail} {
		if r.findings[i].Level != want {
			t.Errorf("%d: %+v, want %s", i, r.findings[i], want)
		}
	}
}

func TestHostsFollowTheRoles(t *testing.T) {
	c := Default()
	c.Apps = map[string]*App{
		"a": {APNs: &APNs{}, FCM: &FCM{TokenURL: "https://oauth2.googleapis.com/token"}, WebPush: &WebPush{}},
		"b": {APNs: &APNs{}, WebPush: &WebPush{AllowHosts: []string{"127.0.0.1:1"}}},
	}
	if n := len(c.hosts()); n != 6 {
		t.Errorf("%d hosts: %v", n, c.hosts())
	}
	c.Roles = []string{"senders.apns"}
	if n := len(c.hosts()); n != 2 {
		t.Errorf("%d hosts: %v", n, c.hosts())
	}
}

// serverCert makes a certificate for 127.0.0.1 that trusts itself, and its PEM.
func serverCert(t testing.TB) (tls.Certificate, string, string) {
	t.Helper()
	k := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, cert, pkcs8(t, k)
}
