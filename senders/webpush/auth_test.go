package webpush

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	push "github.com/SherClockHolmes/webpush-go"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

func TestVapidHeaderLivesAnHour(t *testing.T) {
	c := config()
	synctest.Test(t, func(t *testing.T) {
		v, err := newVapid(c)
		if err != nil {
			t.Fatal(err)
		}
		sent := func(origin string) string {
			t.Helper()
			header, err := v.authorization(origin, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return header
		}
		first, other := sent("https://o.example"), sent("https://p.example")
		time.Sleep(renewAfter - time.Second)
		if sent("https://o.example") != first || other == first {
			t.Error("the header changed within the hour, or is the same for two origins")
		}
		time.Sleep(time.Second)
		second := sent("https://o.example")
		if second == first || sent("https://o.example") != second {
			t.Error("an hour later there was no new header, or more than one")
		}
		v.forget("https://o.example")
		if sent("https://o.example") == second {
			t.Error("a header that was refused was sent again")
		}
		for i := range maxSigned + 10 {
			sent(fmt.Sprintf("https://%d.example", i))
		}
		if len(v.headers) > maxSigned {
			t.Errorf("%d headers are kept", len(v.headers))
		}
		time.Sleep(renewAfter)
		late := sent("https://late.example")
		if late != sent("https://late.example") {
			t.Error("no room was made for a new origin, though all others were old")
		}
	})
}

// Many that find no header at the same time agree on one: a push service that verifies it does so once.
func TestVapidHeaderIsOne(t *testing.T) {
	v, err := newVapid(config())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	var mu sync.Mutex
	seen := map[string]bool{}
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			header, err := v.authorization("https://o.example", at)
			mu.Lock()
			defer mu.Unlock()
			if seen[header] = true; err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if len(seen) != 1 {
		t.Errorf("%d headers", len(seen))
	}
}

// The header says what webpush-go's says.
func TestVapidAgainstWebPushGo(t *testing.T) {
	for subject, subscriber := range map[string]string{
		"mailto:ops@example.com":      "ops@example.com",
		"https://example.com/contact": "https://example.com/contact",
	} {
		c := config()
		c.Subject = subject
		v, err := newVapid(c)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := v.authorization("https://push.example", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var theirs capture
		_, err = push.SendNotification(nil, &push.Subscription{Endpoint: "https://push.example/x", Keys: push.Keys{
			Auth: b64.EncodeToString(alice().auth), P256dh: b64.EncodeToString(alice().key.PublicKey().Bytes()),
		}}, &push.Options{HTTPClient: &theirs, Subscriber: subscriber, VAPIDPublicKey: c.PublicKey, VAPIDPrivateKey: c.PrivateKey})
		if err != nil {
			t.Fatal(err)
		}
		a, b := readVapid(t, ours), readVapid(t, theirs.header.Get("Authorization"))
		if d := a["exp"].(float64) - b["exp"].(float64); d < -60 || d > 60 {
			t.Errorf("it expires %v s after theirs", d)
		}
		delete(a, "exp")
		delete(b, "exp")
		if diff := cmp.Diff(b, a); diff != "" {
			t.Error(diff)
		}
	}
}

// capture is what a library would have sent.
type capture struct{ header http.Header }

func (c *capture) Do(r *http.Request) (*http.Response, error) {
	c.header = r.Header
	return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody}, nil
}

// readVapid checks a header's signature against the key beside it, as RFC 8292 section 3 has a push service do it.
func readVapid(t *testing.T, header string) jwt.MapClaims {
	t.Helper()
	token, k, _ := strings.Cut(strings.TrimPrefix(header, "vapid t="), ", k=")
	public, err := b64.DecodeString(k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), public)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	_, err = jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil }, jwt.WithValidMethods([]string{"ES256"}))
	if err != nil {
		t.Fatalf("%q: %v", header, err)
	}
	return claims
}
