package simulator

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// oauth is Google's token endpoint, for one grant: a service account's signed assertion (RFC 7523).
type oauth struct {
	world *world
	now   func() time.Time
	url   string
}

const (
	jwtBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	accessSeconds = 3599
)

func (o *oauth) limit() int { return 16 << 10 }

func (o *oauth) identify(c *call) {
	form, err := url.ParseQuery(string(c.Body))
	if err != nil {
		return
	}
	claims := jwt.MapClaims{}
	if _, _, err := rs256.ParseUnverified(form.Get("assertion"), claims); err != nil {
		return
	}
	if a := o.account(text(claims, "iss")); a != nil {
		c.app = int(a.index)
	}
}

func (o *oauth) account(email string) *App {
	for _, a := range o.world.apps {
		if a.ClientEmail == email {
			return a
		}
	}
	return nil
}

func (o *oauth) judge(c *call) Answer {
	form, err := url.ParseQuery(string(c.Body))
	path, _, _ := strings.Cut(c.Path, "?")
	switch {
	case path != "/token":
		return oauthError(http.StatusNotFound, "not_found", "There is only /token.")
	case c.Method != http.MethodPost:
		return oauthError(http.StatusMethodNotAllowed, "invalid_request", "Use POST.")
	case err != nil || !strings.HasPrefix(c.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		return oauthError(http.StatusBadRequest, "invalid_request", "The body is not a form.")
	case form.Get("grant_type") != jwtBearer:
		return oauthError(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
	}
	a, status, code, text := o.verify(form.Get("assertion"))
	if status != 0 {
		return oauthError(status, code, text)
	}
	b, err := json.Marshal(map[string]any{
		"access_token": o.world.accessToken(a.index, o.now().Unix()+accessSeconds),
		"expires_in":   accessSeconds,
		"token_type":   "Bearer",
	})
	if err != nil {
		return oauthError(http.StatusInternalServerError, "internal_failure", err.Error())
	}
	return Answer{Status: http.StatusOK, Body: b, Fields: jsonUTF8}
}

func (o *oauth) verify(assertion string) (a *App, status int, code, description string) {
	var wrongKey bool
	claims, err := parseJWT(rs256, assertion, func(kid string) (any, error) {
		c := jwt.MapClaims{}
		if _, _, err := rs256.ParseUnverified(assertion, c); err != nil {
			return nil, err
		}
		if a = o.account(text(c, "iss")); a == nil {
			return nil, errors.New("no such account")
		}
		wrongKey = kid != a.serviceKeyID
		return &a.serviceKey().PublicKey, nil
	})
	now := o.now().Unix()
	iat, hasIat := number(claims, "iat")
	exp, hasExp := number(claims, "exp")
	switch {
	case err != nil && a == nil:
		return nil, http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found"
	case err != nil || wrongKey:
		return nil, http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature."
	case text(claims, "aud") != o.url+"/token":
		return nil, http.StatusBadRequest, "invalid_grant", "Failed audience check."
	case !hasIat || !hasExp || iat > now+60 || exp <= now || exp > iat+3600:
		return nil, http.StatusBadRequest, "invalid_grant",
			"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."
	case !sendScope(text(claims, "scope")):
		return nil, http.StatusBadRequest, "invalid_scope", "The scope allows no sending."
	}
	return a, 0, "", ""
}

// sendScope says whether a list of scopes has one that messages:send accepts.
func sendScope(list string) bool {
	for s := range strings.FieldsSeq(list) {
		if s == "https://www.googleapis.com/auth/firebase.messaging" || s == "https://www.googleapis.com/auth/cloud-platform" {
			return true
		}
	}
	return false
}

func oauthError(status int, code, description string) Answer {
	b, err := json.Marshal(map[string]string{"error": code, "error_description": description})
	if err != nil {
		b = nil // two strings cannot fail
	}
	return Answer{Status: status, Body: b, Fields: jsonUTF8}
}

func (o *oauth) refuse(_ *call, f *Fault, status int) Answer {
	code := f.Reason
	if code == "" {
		code = map[int]string{400: "invalid_grant", 401: "invalid_client", 403: "access_denied", 429: "rate_limit_exceeded", 500: "internal_failure"}[status]
	}
	return f.retryAfter(oauthError(status, code, "A fault of the simulator."))
}

var jsonUTF8 = []Field{{"Content-Type", "application/json; charset=UTF-8"}}

const accessPrefix = "ya29.c."

// accessToken holds its app and when it expires, encrypted: the simulator needs to remember none, nor forgets one when
// it is started again.
func (w *world) accessToken(app uint16, expires int64) string {
	var b [16]byte
	copy(b[:], "tokn")
	binary.BigEndian.PutUint16(b[6:], app)
	binary.BigEndian.PutUint64(b[8:], uint64(expires))
	w.proof.Encrypt(b[:], b[:])
	return accessPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// openAccess reads an access token: whose it is, and until when, Unix s.
func (w *world) openAccess(token string) (app int, expires int64, ok bool) {
	rest, ok := strings.CutPrefix(token, accessPrefix)
	if !ok || len(rest) != 22 {
		return 0, 0, false
	}
	var b [18]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(rest)); err != nil || n != 16 {
		return 0, 0, false
	}
	w.proof.Decrypt(b[:16], b[:16])
	if !bytes.Equal(b[:6], []byte("tokn\x00\x00")) {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint16(b[6:])), int64(binary.BigEndian.Uint64(b[8:])), true
}
