package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// verified remembers tokens whose signature was verified, by their text: verifying one costs 60 µs, as much as
// everything else that is done for three pushes. Times are not part of what is remembered, for they pass.
type verified[V any] struct {
	mu sync.RWMutex
	m  map[string]V
}

const maxVerified = 4096

func (v *verified[V]) get(token string) (V, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	claims, ok := v.m[token]
	return claims, ok
}

func (v *verified[V]) put(token string, claims V) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.m == nil || len(v.m) >= maxVerified {
		v.m = map[string]V{}
	}
	v.m[token] = claims
}

// The parsers check a signature and its algorithm. Claims are the providers' to check.
var (
	es256 = jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	rs256 = jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
)

var errNoKey = errors.New("nobody has this key id")

func parseJWT(p *jwt.Parser, token string, key func(kid string) (any, error)) (jwt.MapClaims, error) {
	claims := jwt.MapClaims{}
	_, err := p.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		return key(kid)
	})
	return claims, err
}

// number is a claim that is a number, such as a time in seconds.
func number(c jwt.MapClaims, name string) (int64, bool) {
	f, ok := c[name].(float64)
	return int64(f), ok
}

func text(c jwt.MapClaims, name string) string {
	s, _ := c[name].(string)
	return s
}

// vapidKey reads the k of an Authorization header (RFC 8292 section 3.2): an uncompressed point in base64url.
func vapidKey(k string) (*ecdsa.PublicKey, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(k)
	if err != nil {
		return nil, err
	}
	if len(b) != 65 {
		return nil, errors.New("not an uncompressed P-256 point")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
}
