package apns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
)

var production1 = senders.Destination{App: "demo", Name: production}

// running starts the provider in a bubble and gives what the test needs to see of its token.
func running(t *testing.T, test func(p *Provider, token func() string)) {
	c := config(t, "", nil)
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		test(p, func() string {
			synctest.Wait()
			bearer, ok := p.apps["demo"].signer.authorization()
			if !ok {
				return ""
			}
			return bearer
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTokenIsRenewedBetweenTwentyAndSixtyMinutes(t *testing.T) {
	running(t, func(_ *Provider, token func() string) {
		last, changed := token(), time.Now()
		for range 600 {
			time.Sleep(time.Minute)
			bearer := token()
			if bearer == "" {
				t.Fatal("there was a moment without a token")
			}
			if bearer == last {
				continue
			}
			if age := time.Since(changed); age < notWithin || age >= validFor {
				t.Errorf("renewed after %s", age)
			}
			last, changed = bearer, time.Now()
		}
		if time.Since(changed) > validFor {
			t.Error("it was not renewed")
		}
	})
}

func TestARefusedTokenIsRenewedButNotTooOften(t *testing.T) {
	running(t, func(p *Provider, token func() string) {
		first := token()
		time.Sleep(10 * time.Minute)
		p.Refresh(production1)
		if token() != first {
			t.Error("a token 10 minutes old was changed: Apple refuses that")
		}
		time.Sleep(15 * time.Minute)
		for range 100 {
			p.Refresh(production1) // a hundred requests met the same refusal
		}
		second := token()
		if second == first || second == "" {
			t.Error("a token 25 minutes old was not changed")
		}
		p.Refresh(production1)
		if token() != second {
			t.Error("a late refusal of the old token changed the new one")
		}
	})
}

func TestCalmKeepsTheTokenAsLongAsItServes(t *testing.T) {
	running(t, func(p *Provider, token func() string) {
		first := token()
		time.Sleep(44 * time.Minute)
		p.apps["demo"].signer.calm()
		p.Refresh(production1)
		time.Sleep(10 * time.Minute)
		if token() != first {
			t.Error("it changed though Apple had asked for fewer changes")
		}
		time.Sleep(2 * time.Minute)
		if second := token(); second == first || second == "" {
			t.Error("it was kept until it lapsed")
		}
	})
}

func TestNoTokenNoRequest(t *testing.T) {
	s := exchangetest.Serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	p := provider(t, config(t, s.URL, s.CA))
	r, err := exchangetest.Encode(p, delivery(), compile(t, &pb.Message{}), now)
	if err != nil {
		t.Fatal(err)
	}
	p.apps["demo"].signer.issued = time.Now().Add(-validFor)
	if _, res := exchangetest.Ask(t.Context(), p, r); !errors.Is(res.Err, senders.ErrNoToken) {
		t.Errorf("got %v", res.Err)
	}
}

// Two apps under one key must not change the token for each other.
func TestOneKeyOneToken(t *testing.T) {
	c := config(t, "", nil)
	p, err := New(map[string]Config{"a": c, "b": c, "c": config(t, "", nil)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if p.apps["a"].signer != p.apps["b"].signer || p.apps["a"].signer == p.apps["c"].signer || len(p.signers) != 2 {
		t.Error("signers are not shared by key")
	}
}

// Apple ties a connection to the key first used on it, and says so when another is used.
func TestUnrelatedKeyTakesANewConnection(t *testing.T) { exchangetest.BothWays(t, unrelatedKey) }

func unrelatedKey(t *testing.T, piped bool) {
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("apns-collapse-id") == "bad" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"reason":"UnrelatedKeyIdInToken"}`))
		}
	})
	c := config(t, s.URL, s.CA)
	c.Wire = piped
	p := provider(t, c)
	good, bad := compile(t, &pb.Message{}), compile(t, &pb.Message{Collapse: "bad"})
	send(t, p, delivery(), good)
	if v := send(t, p, delivery(), bad); v.Next != senders.Again || s.Connections.Load() != 1 {
		t.Fatalf("got %+v over %d connections", v, s.Connections.Load())
	}
	if v := send(t, p, delivery(), good); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED || s.Connections.Load() != 2 {
		t.Errorf("got %+v over %d connections", v, s.Connections.Load())
	}
}

func TestCertificate(t *testing.T) {
	p12, err := os.ReadFile("testdata/demo.p12")
	if err != nil {
		t.Fatal(err)
	}
	var peer *x509.Certificate
	s := exchangetest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		peer = r.TLS.PeerCertificates[0]
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("a token went beside the certificate: %q", a)
		}
	}, func(s *httptest.Server) { s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert} })
	p := provider(t, Config{Certificate: p12, Password: "secret", Topic: "com.example.demo", URL: s.URL, CA: s.CA})
	if v := send(t, p, delivery(), compile(t, &pb.Message{})); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
		t.Fatalf("got %+v", v)
	}
	if peer.Subject.CommonName != "Apple Push Services: com.example.demo" {
		t.Errorf("the peer is %s", peer.Subject)
	}
}

func TestNewNamesEachFault(t *testing.T) {
	good := config(t, "", nil)
	p12, _ := os.ReadFile("testdata/demo.p12")
	with := func(change func(*Config)) Config { c := good; change(&c); return c }
	tests := map[string]Config{
		"topic is missing":         with(func(c *Config) { c.Topic = "" }),
		"no credential":            with(func(c *Config) { c.Key = nil }),
		"keep one":                 with(func(c *Config) { c.Certificate = p12 }),
		"key_id or team_id":        with(func(c *Config) { c.TeamID = "" }),
		"read the key (.p8)":       with(func(c *Config) { c.Key = []byte("x") }),
		"read the certificate":     with(func(c *Config) { c.Key = nil; c.Certificate = p12; c.Password = "wrong" }),
		"not an https URL":         with(func(c *Config) { c.URL = "http://gateway" }),
		"holds no certificate":     with(func(c *Config) { c.CA = pem.EncodeToMemory(&pem.Block{Type: "X"}) }),
		"url for sandbox: \"ftp:/": with(func(c *Config) { c.SandboxURL = "ftp://gateway" }),
	}
	apps := make(map[string]Config)
	for want, c := range tests {
		apps[fmt.Sprintf("app-%x", want)] = c
	}
	_, err := New(apps, slog.New(slog.DiscardHandler))
	for want := range tests {
		if prefix := fmt.Sprintf("app app-%x: apns: ", want); err == nil || !strings.Contains(err.Error(), prefix) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said of its app", want)
		}
	}
}
