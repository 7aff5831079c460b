package apns

import (
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sideshow/apns2/token"
)

// Apple refuses a token older than 60 minutes, and one that changed more than about once in 20 (docs/providers.md, "APNs", 429).
const (
	renewAfter  = 45 * time.Minute
	renewBefore = 55 * time.Minute
	validFor    = 60 * time.Minute
	notWithin   = 20 * time.Minute
)

// signer holds one signing key's provider token. Requests take it as it is; run alone makes a new one.
type signer struct {
	key token.Token
	log *slog.Logger
	// refused wakes run. One place is enough: a second refusal of the same token asks for nothing more.
	refused chan struct{}

	mu     sync.Mutex // guards what follows
	header string     // as it stands in a request
	issued time.Time
	// quietUntil is set when Apple found the token changing too often.
	quietUntil time.Time
}

// signerKey is what makes two apps' keys the same to Apple. They must share a token, or they change it for each other.
type signerKey struct {
	team, id string
	key      [sha256.Size]byte
}

func sharedSigner(c Config, signers map[signerKey]*signer, log *slog.Logger) (*signer, error) {
	if c.KeyID == "" || c.TeamID == "" {
		return nil, errors.New("key_id or team_id is missing: both stand beside the key (.p8) in Apple's developer account")
	}
	id := signerKey{c.TeamID, c.KeyID, sha256.Sum256(c.Key)}
	if s := signers[id]; s != nil {
		return s, nil
	}
	key, err := token.AuthKeyFromBytes(c.Key)
	if err != nil {
		return nil, fmt.Errorf("read the key (.p8): %w", err)
	}
	if key.Curve != elliptic.P256() {
		return nil, errors.New("the key (.p8) is not on the curve P-256: take the file as Apple gave it")
	}
	s := &signer{
		key:     token.Token{AuthKey: key, KeyID: c.KeyID, TeamID: c.TeamID},
		log:     log,
		refused: make(chan struct{}, 1),
	}
	// Signing needs no network, so the first request has its token before run begins.
	if err := s.sign(); err != nil {
		return nil, err
	}
	signers[id] = s
	return s, nil
}

// authorization is the header with the current provider token. It reports false while there is none that Apple would take.
func (s *signer) authorization() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header, s.header != "" && time.Since(s.issued) < validFor
}

// refuse says that Apple found the token expired. A younger one than Apple allows to be replaced stays: a refusal then is
// of its predecessor, or the clock is wrong, which a new token cures no better.
func (s *signer) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.issued) < notWithin || now.Before(s.quietUntil) {
		return
	}
	s.header = ""
	select {
	case s.refused <- struct{}{}:
	default:
	}
}

// calm says that Apple found the token changing too often: it stays for as long as it can.
func (s *signer) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quietUntil = time.Now().Add(notWithin)
}

// run renews the token until ctx is done.
func (s *signer) run(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Until(s.due()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.refused:
			timer.Stop()
		case <-timer.C:
			if time.Now().Before(s.due()) {
				continue // calm moved it
			}
		}
		if err := s.sign(); err != nil {
			return err
		}
		s.log.Debug("renewed the APNs provider token")
	}
}

// due is when the token is to be renewed.
func (s *signer) due() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.issued.Add(renewAfter)
	if s.quietUntil.After(at) {
		at = s.quietUntil
	}
	if last := s.issued.Add(renewBefore); at.After(last) {
		at = last
	}
	return at
}

func (s *signer) sign() error {
	// Generate writes into its receiver; only the constructor and run come here, one after the other.
	if _, err := s.key.Generate(); err != nil {
		return fmt.Errorf("sign an APNs provider token with key %s: %w", s.key.KeyID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header, s.issued = "bearer "+s.key.Bearer, time.Unix(s.key.IssuedAt, 0)
	select {
	case <-s.refused: // of the token before
	default:
	}
	return nil
}
