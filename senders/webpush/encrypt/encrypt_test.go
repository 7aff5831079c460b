package encrypt

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	push "github.com/SherClockHolmes/webpush-go"
)

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC8291Example is the message of section 5, with the key pairs, salt and secrets of appendix A, byte for byte.
func TestRFC8291Example(t *testing.T) {
	sender, err := ecdh.P256().NewPrivateKey(decode(t, "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
	if err != nil {
		t.Fatal(err)
	}
	p256dh := decode(t, "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
	auth, salt := decode(t, "BTBZMqHH6r4Tts7J_aSIgg"), decode(t, "DGv6ra1nlYgDCS1FRnbzlw")
	peer, err := subscription(p256dh, auth)
	if err != nil {
		t.Fatal(err)
	}
	body, err := seal(nil, []byte("When I grow up, I want to be a watermelon"), peer, auth, sender, [16]byte(salt), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := decode(t, "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBr"+
		"u3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	if !bytes.Equal(body, want) {
		t.Errorf("got  %x\nwant %x", body, want)
	}

	// And so the test's own browser is right too.
	key, err := ecdh.P256().NewPrivateKey(decode(t, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	if err != nil {
		t.Fatal(err)
	}
	reader := browser{key, auth}
	cek, nonce, err := reader.keys(want)
	if err != nil || !bytes.Equal(cek, decode(t, "oIhVW04MRdy2XN9CiKLxTg")) || !bytes.Equal(nonce, decode(t, "4h_95klXJ5E_qnoN")) {
		t.Errorf("key %x, nonce %x, error %v", cek, nonce, err)
	}
	if plain, err := reader.decrypt(want); err != nil || string(plain) != "When I grow up, I want to be a watermelon" {
		t.Errorf("read %q, error %v", plain, err)
	}
}

func TestABrowserReadsWhatWasSent(t *testing.T) {
	to := newBrowser(t)
	p256dh := to.key.PublicKey().Bytes()
	for _, n := range []int{0, 1, 152, 153, 154, 300, 2000, MaxPlaintext - 1, MaxPlaintext} {
		for _, bucket := range []int{math.MinInt, 0, 1, 256, 1000, MaxBody, math.MaxInt} {
			plaintext := make([]byte, n)
			for i := range plaintext {
				plaintext[i] = byte(rand.Uint32()) // zeros and twos too, as padding has them
			}
			body, err := Append([]byte("before"), plaintext, p256dh, to.auth, bucket)
			if err != nil {
				t.Fatal(err)
			}
			body, before := body[6:], string(body[:6])
			if got, err := to.decrypt(body); err != nil || !bytes.Equal(got, plaintext) || before != "before" {
				t.Errorf("%d bytes in buckets of %d: read %d bytes after %q, error %v", n, bucket, len(got), before, err)
			}
			if len(body) != Size(n, bucket) || len(body) > MaxBody || bucket > 1 && len(body)%bucket != 0 && len(body) != MaxBody {
				t.Errorf("%d bytes in buckets of %d make a body of %d, said to be %d", n, bucket, len(body), Size(n, bucket))
			}
		}
	}
}

func TestPaddingHidesLengths(t *testing.T) {
	for _, tt := range []struct{ n, bucket, want int }{
		{0, 1, 103},
		{0, 256, 256},
		{153, 256, 256},
		{154, 256, 512},
		{MaxPlaintext, 256, 4096},
		{MaxPlaintext, 1000, 4096},
		{10, MaxBody, 4096},
	} {
		if got := Size(tt.n, tt.bucket); got != tt.want {
			t.Errorf("%d bytes in buckets of %d make %d, want %d", tt.n, tt.bucket, got, tt.want)
		}
	}
}

// A reused buffer holds an older message where this one's padding goes.
func TestReusedBufferLeaksNothing(t *testing.T) {
	to := newBrowser(t)
	p256dh := to.key.PublicKey().Bytes()
	buf := bytes.Repeat([]byte("old"), 2000)
	body, err := Append(buf[:0], []byte("new"), p256dh, to.auth, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if &body[0] != &buf[0] {
		t.Error("the buffer was not used again")
	}
	if got, err := to.decrypt(body); err != nil || string(got) != "new" {
		t.Errorf("read %q, error %v", got, err)
	}
}

func TestWrongKeysAndLengths(t *testing.T) {
	to := newBrowser(t)
	good := to.key.PublicKey().Bytes()
	off := bytes.Clone(good)
	off[64] ^= 1
	zero := append([]byte{4}, make([]byte, 64)...)
	beyond := append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...)
	compressed := append([]byte{2 + good[64]&1}, good[1:33]...)
	hybrid := append([]byte{6 + good[64]&1}, good[1:]...)
	for name, tt := range map[string]struct {
		p256dh, auth []byte
		size         int
		want         error
	}{
		"good":                     {good, to.auth, MaxPlaintext, nil},
		"off the curve":            {off, to.auth, 1, ErrSubscription},
		"zeros":                    {zero, to.auth, 1, ErrSubscription},
		"coordinates past p":       {beyond, to.auth, 1, ErrSubscription},
		"compressed":               {compressed, to.auth, 1, ErrSubscription},
		"hybrid":                   {hybrid, to.auth, 1, ErrSubscription},
		"the point at infinity":    {[]byte{0}, to.auth, 1, ErrSubscription},
		"no point":                 {nil, to.auth, 1, ErrSubscription},
		"64 bytes":                 {good[1:], to.auth, 1, ErrSubscription},
		"66 bytes":                 {append(bytes.Clone(good), 0), to.auth, 1, ErrSubscription},
		"no secret":                {good, nil, 1, ErrSubscription},
		"15 bytes of secret":       {good, to.auth[:15], 1, ErrSubscription},
		"17 bytes of secret":       {good, append(bytes.Clone(to.auth), 0), 1, ErrSubscription},
		"a byte more than fits":    {good, to.auth, MaxPlaintext + 1, ErrTooLarge},
		"too large for one record": {good, to.auth, 10000, ErrTooLarge},
	} {
		dst, err := Append([]byte("kept"), make([]byte, tt.size), tt.p256dh, tt.auth, 256)
		if !errors.Is(err, tt.want) || err != nil && string(dst) != "kept" {
			t.Errorf("%s: got %d bytes, error %v, want %v", name, len(dst), err, tt.want)
		}
		if early := Check(tt.p256dh, tt.auth); errors.Is(tt.want, ErrSubscription) != (early != nil) {
			t.Errorf("%s: Check said %v", name, early)
		}
	}
}

// A key with a nonce must serve once: what GCM encrypts twice under the same, it gives away. Both follow from salt and
// key pair, so these must be new each time, whoever asks and however many at once.
func TestSaltKeyAndNonceAreUsedOnce(t *testing.T) {
	to := newBrowser(t)
	p256dh := to.key.PublicKey().Bytes()
	const writers, each = 4, 250
	bodies := make(chan []byte, writers*each)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				body, err := Append(nil, []byte("the same text"), p256dh, to.auth, 1)
				if err != nil {
					t.Error(err)
				}
				bodies <- body
			}
		})
	}
	writing.Wait()
	close(bodies)
	seen := map[string]string{}
	once := func(what string, b []byte) {
		if before, twice := seen[string(b)]; twice {
			t.Errorf("%s %x was used as %s before", what, b, before)
		}
		seen[string(b)] = what
	}
	for body := range bodies {
		cek, nonce, err := to.keys(body)
		if err != nil {
			t.Fatal(err)
		}
		once("salt", body[:16])
		once("key pair", body[21:86])
		once("content key", cek)
		once("nonce", nonce)
		once("ciphertext", body[86:])
	}
	if len(seen) != 5*writers*each {
		t.Errorf("%d values", len(seen))
	}
}

// captured is what webpush-go would have sent.
type captured struct{ body []byte }

func (c *captured) Do(r *http.Request) (*http.Response, error) {
	c.body, _ = io.ReadAll(r.Body)
	return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody}, nil
}

// The reference's bodies and ours are read by the same browser, and have the same form.
func TestAgainstWebPushGo(t *testing.T) {
	to := newBrowser(t)
	p256dh := to.key.PublicKey().Bytes()
	private, public, err := push.GenerateVAPIDKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 500, MaxPlaintext} {
		plaintext := bytes.Repeat([]byte("x"), n)
		ours, err := Append(nil, plaintext, p256dh, to.auth, MaxBody)
		if err != nil {
			t.Fatal(err)
		}
		var theirs captured
		_, err = push.SendNotification(plaintext, &push.Subscription{Endpoint: "https://push.example/x", Keys: push.Keys{
			Auth: base64.RawURLEncoding.EncodeToString(to.auth), P256dh: base64.RawURLEncoding.EncodeToString(p256dh),
		}}, &push.Options{HTTPClient: &theirs, VAPIDPublicKey: public, VAPIDPrivateKey: private})
		if err != nil {
			t.Fatal(err)
		}
		for name, body := range map[string][]byte{"ours": ours, "theirs": theirs.body} {
			if got, err := to.decrypt(body); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%s: %d bytes read as %d, error %v", name, n, len(got), err)
			}
		}
		if len(ours) != len(theirs.body) || !bytes.Equal(ours[16:22], theirs.body[16:22]) {
			t.Errorf("a body of %d bytes begins %x; theirs has %d and begins %x", len(ours), ours[16:22], len(theirs.body), theirs.body[16:22])
		}
	}
}

func FuzzAppend(f *testing.F) {
	to := newBrowser(f)
	good := to.key.PublicKey().Bytes()
	f.Add([]byte("plain"), good, to.auth, 256)
	f.Add([]byte{2, 0, 0}, good, to.auth, 1)
	f.Add(make([]byte, MaxPlaintext+1), good, to.auth, MaxBody)
	f.Add([]byte{}, append([]byte{4}, make([]byte, 64)...), to.auth, -5)
	f.Fuzz(func(t *testing.T, plaintext, p256dh, auth []byte, bucket int) {
		bad := Check(p256dh, auth)
		body, err := Append(nil, plaintext, p256dh, auth, bucket)
		switch {
		case bad != nil || len(plaintext) > MaxPlaintext:
			if err == nil || body != nil {
				t.Errorf("made %d bytes in spite of %v", len(body), bad)
			}
		case err != nil:
			t.Error(err)
		case bytes.Equal(p256dh, good):
			if got, err := (browser{to.key, auth}).decrypt(body); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%d bytes read as %d, error %v", len(plaintext), len(got), err)
			}
		}
	})
}
