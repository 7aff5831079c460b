package webpush

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// renewAfter is how long an Authorization header serves: Apple asks not to change it more than once an hour.
	renewAfter = time.Hour
	// validFor is what it says of itself. RFC 8292 section 2 allows 24 hours, by the push service's clock and not ours.
	validFor = 12 * time.Hour
	// maxSigned bounds the origins whose header is kept; the others get a new one each time, which is allowed.
	maxSigned = 1024
)

// vapid is an app's key pair (RFC 8292) and the headers signed with it. It is safe for concurrent use.
type vapid struct {
	// public and private are in base64url.
	public, private string
	subject         string
	key             *ecdsa.PrivateKey

	mu      sync.Mutex // guards headers, by origin
	headers map[string]signed
}

type signed struct {
	header string
	at     time.Time
}

func newVapid(c Config) (*vapid, error) {
	decode := func(name, s string, size int) ([]byte, error) {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
		if err != nil || len(b) != size {
			return nil, fmt.Errorf("%s is not %d bytes in base64url: make a pair with a VAPID key generator", name, size)
		}
		return b, nil
	}
	public, err := decode("public_key", c.PublicKey, 65)
	if err != nil {
		return nil, err
	}
	private, err := decode("private_key", c.PrivateKey, 32)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), private)
	if err != nil {
		return nil, errors.New("private_key is not a key on the curve P-256")
	}
	if own, err := key.PublicKey.Bytes(); err != nil || !bytes.Equal(own, public) {
		return nil, errors.New("public_key and private_key are no pair: take both from the same place")
	}
	mail, isMail := strings.CutPrefix(c.Subject, "mailto:")
	if u, err := url.Parse(c.Subject); err != nil || !(isMail && strings.Contains(mail, "@")) && (u.Scheme != "https" || u.Host == "") {
		return nil, fmt.Errorf("subject %q is neither mailto:… nor https://…", c.Subject)
	}
	return &vapid{
		public:  base64.RawURLEncoding.EncodeToString(public),
		private: base64.RawURLEncoding.EncodeToString(private),
		subject: c.Subject,
		key:     key,
		headers: make(map[string]signed),
	}, nil
}

// authorization is the Authorization header for an origin: the same for an hour, so that push services that remember what
// they have verified need not do it again, and HPACK sends it once for a connection.
func (v *vapid) authorization(origin string, now time.Time) (string, error) {
	v.mu.Lock()
	s, known := v.headers[origin]
	v.mu.Unlock()
	if known && now.Sub(s.at) < renewAfter {
		return s.header, nil
	}
	// Signing takes as long as looking up does for a thousand others, so it holds the lock for none of them.
	header, err := v.sign(origin, now)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s, known = v.headers[origin]
	if known && now.Sub(s.at) < renewAfter {
		return s.header, nil // somebody else was faster
	}
	if known || len(v.headers) < maxSigned || v.expire(now) {
		v.headers[strings.Clone(origin)] = signed{header, now} // it may lie in a record, whose buffer is used again
	}
	return header, nil
}

// sign makes a header (RFC 8292 sections 2 and 3).
func (v *vapid) sign(origin string, now time.Time) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"aud": origin, "exp": now.Add(validFor).Unix(), "sub": v.subject,
	}).SignedString(v.key)
	if err != nil {
		return "", fmt.Errorf("sign a VAPID header: %w", err)
	}
	return "vapid t=" + token + ", k=" + v.public, nil
}

// expire drops the headers that are too old to serve. It must be called with mu held.
func (v *vapid) expire(now time.Time) bool {
	for origin, s := range v.headers {
		if now.Sub(s.at) >= renewAfter {
			delete(v.headers, origin)
		}
	}
	return len(v.headers) < maxSigned
}

// forget has the origin's next request signed anew: the push service refused the last.
func (v *vapid) forget(origin string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.headers, origin)
}
