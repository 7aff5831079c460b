package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
)

var project = senders.Destination{App: "demo", Name: "demo-project"}

// endpoint is a token endpoint of the test's own making.
type endpoint struct {
	down, refuses atomic.Bool
	fetches       atomic.Int64
}

func (g *endpoint) fetch(context.Context) (*oauth2.Token, error) {
	n := g.fetches.Add(1)
	if g.refuses.Load() {
		return nil, errRefused
	}
	if g.down.Load() {
		return nil, errors.New("away")
	}
	return &oauth2.Token{AccessToken: fmt.Sprint("access-", n), Expiry: time.Now().Add(time.Hour)}, nil
}

// running starts the provider in a bubble.
func running(t *testing.T, g *endpoint, test func(p *Provider, token func() string)) {
	key() // made outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, "", nil)
		tokens := p.apps["demo"].tokens
		tokens.fetch, tokens.header = g.fetch, ""
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		test(p, func() string {
			synctest.Wait()
			access, _ := tokens.authorization()
			return access
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTokenIsRenewedAheadOfItsExpiry(t *testing.T) {
	g := &endpoint{}
	running(t, g, func(_ *Provider, token func() string) {
		for range 300 {
			if token() == "" {
				t.Fatal("there was a moment without a token")
			}
			time.Sleep(time.Minute)
		}
		if n := g.fetches.Load(); n < 5 || n > 8 {
			t.Errorf("%d tokens in five hours", n)
		}
	})
}

func TestAnOutageOfTheTokenEndpoint(t *testing.T) {
	g := &endpoint{}
	running(t, g, func(p *Provider, token func() string) {
		token()
		time.Sleep(49 * time.Minute)
		g.down.Store(true)
		time.Sleep(7 * time.Minute)
		if token() == "" {
			t.Error("a good token was given up because the next could not be fetched")
		}
		time.Sleep(10 * time.Minute)
		if token() != "" {
			t.Error("a token is used beyond its end")
		}
		before := g.fetches.Load()
		for range 50 {
			p.Refresh(project) // asking more does not fetch more
		}
		time.Sleep(10 * time.Minute)
		if n := g.fetches.Load() - before; n < 120 || n > 320 {
			t.Errorf("%d attempts in ten minutes of outage", n)
		}
		g.down.Store(false)
		time.Sleep(time.Minute)
		if token() == "" {
			t.Error("it did not recover by itself")
		}
	})
}

func TestARefusedTokenIsFetchedAnewOnce(t *testing.T) {
	g := &endpoint{}
	running(t, g, func(p *Provider, token func() string) {
		first := token()
		time.Sleep(time.Minute)
		for range 100 {
			p.Refresh(project) // a hundred requests met the same refusal
		}
		second := token()
		if second == first || second == "" || g.fetches.Load() != 2 {
			t.Errorf("token %q after %q, %d fetches", second, first, g.fetches.Load())
		}
		time.Sleep(5 * time.Second)
		p.Refresh(project)
		if token() != second {
			t.Error("a late refusal of the old token threw the new one away")
		}
	})
}

// An account that is refused is told from an endpoint that is away: only the operator can mend it.
func TestARefusedAccountIsTold(t *testing.T) {
	g := &endpoint{}
	g.down.Store(true)
	running(t, g, func(p *Provider, token func() string) {
		tokens := p.apps["demo"].tokens
		why := func() error {
			time.Sleep(maxBackoff)
			token()
			_, err := tokens.authorization()
			return err
		}
		if err := why(); !errors.Is(err, senders.ErrNoToken) || errors.Is(err, senders.ErrTokenRefused) {
			t.Errorf("away: %v", err)
		}
		g.refuses.Store(true)
		if err := why(); !errors.Is(err, senders.ErrTokenRefused) {
			t.Errorf("refused: %v", err)
		}
		g.refuses.Store(false)
		if err := why(); errors.Is(err, senders.ErrTokenRefused) {
			t.Errorf("away again: %v", err)
		}
		g.down.Store(false)
		if err := why(); err != nil {
			t.Errorf("mended: %v", err)
		}
	})
}

// Without a token Send fails at once: no request, no fetch, no wait. firebase by itself would take seven seconds.
func TestNoTokenDelaysNoSend(t *testing.T) {
	s := exchangetest.Serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	p := provider(t, s.URL, s.CA)
	tokens := p.apps["demo"].tokens
	tokens.header = ""
	tokens.fetch = func(context.Context) (*oauth2.Token, error) {
		t.Error("a token was fetched in the send path")
		return nil, errors.New("no")
	}
	r, err := exchangetest.Encode(p, delivery(), compile(t, &pb.Message{}), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, res := exchangetest.Ask(t.Context(), p, r); !errors.Is(res.Err, senders.ErrNoToken) {
		t.Errorf("got %v", res.Err)
	}
}

func TestFetch(t *testing.T) {
	refuse := false
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		claims := jwt.MapClaims{}
		_, err := jwt.ParseWithClaims(r.FormValue("assertion"), claims, func(*jwt.Token) (any, error) { return &key().PublicKey, nil })
		if err != nil || claims["scope"] != scope || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			t.Errorf("assertion %v: %v", claims, err)
		}
		if refuse {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"secret"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "expires_in": 3599, "token_type": "Bearer"})
	})
	p, err := New(map[string]Config{"demo": {ServiceAccount: serviceAccount(t, "https://oauth.invalid"), TokenURL: s.URL + "/token", CA: s.CA}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fetch := p.apps["demo"].tokens.fetch
	token, err := fetch(t.Context())
	if err != nil || token.AccessToken != "a" || time.Until(token.Expiry) < 59*time.Minute {
		t.Errorf("got %v, %v", token, err)
	}
	refuse = true
	if _, err := fetch(t.Context()); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "400 Bad Request invalid_grant") || !errors.Is(err, errRefused) {
		t.Errorf("got %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch(over); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("it does not end with its context: %v", err)
	}
}
