package fcm

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	"github.com/belfry/belfry/senders"
)

const scope = "https://www.googleapis.com/auth/firebase.messaging"

const (
	fetchTimeout = 10 * time.Second
	// Between attempts to fetch a token: doubling, with jitter.
	minBackoff = time.Second
	maxBackoff = 4 * time.Second // all goes on within ten seconds when it may
	// lifetime is assumed where the answer does not say (Google's is one hour).
	lifetime = time.Hour
	// stillGood is how long a fetched token is kept whatever is said of it: refusals of its predecessor still come in for
	// as long as a request may take.
	stillGood = 10 * time.Second
)

// tokens holds one service account's access token. Requests take it as it is; run alone fetches.
type tokens struct {
	fetch func(context.Context) (*oauth2.Token, error)
	log   *slog.Logger
	// refused wakes run. One place is enough: a second refusal of the same token asks for nothing more.
	refused chan struct{}

	mu      sync.Mutex // guards what follows
	header  string     // as it stands in a request
	fetched time.Time
	// useUntil is a little before it expires, so that a request does not arrive with a token that just has.
	useUntil time.Time
	// denied says that the account was refused when a token was asked for last.
	denied bool
}

func newTokens(c Config, config *tls.Config, log *slog.Logger) (*tokens, error) {
	account, err := google.JWTConfigFromJSON(c.ServiceAccount, scope)
	if err != nil {
		return nil, fmt.Errorf("read the service account: %w", err)
	}
	if err := checkKey(account.PrivateKey); err != nil {
		return nil, err
	}
	if c.TokenURL != "" {
		account.TokenURL = c.TokenURL
	}
	client := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config.Clone(), TLSHandshakeTimeout: fetchTimeout,
		ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
	}
	t := &tokens{log: log, refused: make(chan struct{}, 1)}
	t.fetch = func(ctx context.Context) (*oauth2.Token, error) { return fetch(ctx, account, client) }
	return t, nil
}

// checkKey tells at the start what jwt would find at the first fetch.
func checkKey(b []byte) error {
	if block, _ := pem.Decode(b); block != nil {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		if _, ok := key.(*rsa.PrivateKey); ok && err == nil {
			return nil
		}
	}
	return errors.New("the service account's private_key is not an RSA key in PEM form: take the file as the Google Cloud console gave it")
}

// errRefused is that no other try will do: RFC 6749 5.2.
var errRefused = errors.New("the service account is refused")

// fetch asks for a new access token. jwt's source posts without a context, so ctx rides in the transport.
func fetch(ctx context.Context, account *jwt.Config, client http.RoundTripper) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	bound := roundTrip(func(r *http.Request) (*http.Response, error) { return client.RoundTrip(r.WithContext(ctx)) })
	token, err := account.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: bound})).Token()
	// A refusal's text holds the whole answer; its code says enough, and is fit for a log. jwt's source leaves it in the body.
	if refusal := new(oauth2.RetrieveError); errors.As(err, &refusal) {
		var answer struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(refusal.Body, &answer) // what is no JSON has no code
		answered := fmt.Sprintf("%s: %s %s", account.TokenURL, refusal.Response.Status, answer.Error)
		if code := refusal.Response.StatusCode; code < 400 || code >= 500 || code == http.StatusTooManyRequests {
			return nil, errors.New(answered)
		}
		return nil, fmt.Errorf("%w: %s", errRefused, answered)
	}
	if err == nil && token.AccessToken == "" {
		return nil, fmt.Errorf("%s answered without an access token", account.TokenURL)
	}
	return token, err
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// authorization is the header with the current access token, or senders.ErrNoToken or ErrTokenRefused while there is none that FCM
// would take.
func (t *tokens) authorization() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.header != "" && time.Now().Before(t.useUntil):
		return t.header, nil
	case t.denied:
		return "", senders.ErrTokenRefused
	}
	return "", senders.ErrNoToken
}

// refuse says that FCM did not take the token.
func (t *tokens) refuse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.fetched) < stillGood {
		return
	}
	t.header = ""
	select {
	case t.refused <- struct{}{}:
	default:
	}
}

// run fetches the token and renews it ahead of its expiry until ctx is done.
func (t *tokens) run(ctx context.Context) {
	wait, failed, told := time.Duration(0), 0, false
	for {
		refused := t.refused
		if failed > 0 {
			refused = nil // it is being tried already, and no sooner for being asked again
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-refused:
			timer.Stop()
		case <-timer.C:
		}
		token, err := t.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failed++
			wait = backoff(failed)
			t.deny(errors.Is(err, errRefused))
			switch {
			case errors.Is(err, errRefused) && !told:
				told = true
				t.log.Error("no FCM access token: deliveries wait once the present one lapses. Mend the app's service account in the configuration: "+
					"it or its key is gone, or another's, or this machine's clock is wrong", "err", err)
			case failed == 1:
				t.log.Warn("cannot fetch an FCM access token; deliveries wait once the present one lapses", "err", err)
			}
		default:
			if failed > 0 {
				t.log.Info("fetched an FCM access token again")
			}
			failed, told, wait = 0, false, t.keep(token)
		}
	}
}

// keep stores a token and returns when to renew it: with a sixth of its life left, 10 minutes of Google's hour, so that a
// token endpoint may be away that long and nobody notice.
func (t *tokens) keep(token *oauth2.Token) time.Duration {
	now := time.Now()
	life := lifetime
	if !token.Expiry.IsZero() {
		life = max(token.Expiry.Sub(now), minBackoff)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header, t.fetched, t.useUntil, t.denied = "Bearer "+token.AccessToken, now, now.Add(life-life/20), false
	select {
	case <-t.refused: // of the token before
	default:
	}
	return life - life/6
}

func (t *tokens) deny(denied bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.denied = denied
}

func backoff(failed int) time.Duration {
	d := min(minBackoff<<min(failed-1, 6), maxBackoff)
	return d/2 + rand.N(d/2)
}
