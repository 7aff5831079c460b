package webpush

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// signedFor is how long an Authorization header serves. webpush-go signs a token valid for 12 hours with each send; but
	// Apple asks not to change it more than once an hour.
	signedFor = time.Hour
	// maxSigned bounds the origins whose header is kept; the others send a new one each time, which is allowed.
	maxSigned = 1024
)

// vapid is an app's key pair (RFC 8292) and the headers signed with it.
type vapid struct {
	public, private string
	// subscriber is in webpush-go's form: it puts mailto: before all that is not https.
	subscriber string

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
	key, err := ecdh.P256().NewPrivateKey(private)
	if err != nil {
		return nil, errors.New("private_key is not a key on the curve P-256")
	}
	if !bytes.Equal(key.PublicKey().Bytes(), public) {
		return nil, errors.New("public_key and private_key are no pair: take both from the same place")
	}
	mail, isMail := strings.CutPrefix(c.Subject, "mailto:")
	if u, err := url.Parse(c.Subject); err != nil || !(isMail && strings.Contains(mail, "@")) && (u.Scheme != "https" || u.Host == "") {
		return nil, fmt.Errorf("subject %q is neither mailto:… nor https://…", c.Subject)
	}
	return &vapid{
		public:     base64.RawURLEncoding.EncodeToString(public),
		private:    base64.RawURLEncoding.EncodeToString(private),
		subscriber: mail,
		headers:    make(map[string]signed),
	}, nil
}

// settle puts the origin's current Authorization in the place of the one just signed, or keeps that one for the next hour.
func (v *vapid) settle(origin string, h http.Header) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	s, known := v.headers[origin]
	switch {
	case known && now.Sub(s.at) < signedFor:
		h.Set("Authorization", s.header)
	case known || len(v.headers) < maxSigned || v.expire(now):
		v.headers[origin] = signed{h.Get("Authorization"), now}
	}
}

// expire drops the headers that are too old to serve. It must be called with mu held.
func (v *vapid) expire(now time.Time) bool {
	for origin, s := range v.headers {
		if now.Sub(s.at) >= signedFor {
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
