package encrypt

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"

	push "github.com/SherClockHolmes/webpush-go"
)

// plaintextSize is a usual notification's, in bytes.
const plaintextSize = 300

// cpu reports, at the end, the process's CPU time for each of n operations a round: on a machine that others use too the
// clock says little.
func cpu(b *testing.B) (report func(n int)) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin := used()
	return func(n int) { b.ReportMetric(float64(used()-begin)/float64(b.N*n), "cpu-ns/op") }
}

// BenchmarkFloor is what no encryption can do without: a key pair and a shared secret.
func BenchmarkFloor(b *testing.B) {
	peer := newBrowser(b).key.PublicKey()
	b.ReportAllocs()
	defer cpu(b)(1)
	for b.Loop() {
		key, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := key.ECDH(peer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	to := newBrowser(b)
	p256dh, plaintext := to.key.PublicKey().Bytes(), make([]byte, plaintextSize)
	var dst []byte
	b.ReportAllocs()
	defer cpu(b)(1)
	for b.Loop() {
		var err error
		if dst, err = Append(dst[:0], plaintext, p256dh, to.auth, 256); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendParallel(b *testing.B) {
	to := newBrowser(b)
	p256dh, plaintext := to.key.PublicKey().Bytes(), make([]byte, plaintextSize)
	b.ReportAllocs()
	defer cpu(b)(1)
	b.RunParallel(func(pb *testing.PB) {
		var dst []byte
		for pb.Next() {
			var err error
			if dst, err = Append(dst[:0], plaintext, p256dh, to.auth, 256); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	to := newBrowser(b)
	p256dh := to.key.PublicKey().Bytes()
	b.ReportAllocs()
	defer cpu(b)(1)
	for b.Loop() {
		if err := Check(p256dh, to.auth); err != nil {
			b.Fatal(err)
		}
	}
}

var errKept = errors.New("kept from the network")

type noNetwork struct{}

func (noNetwork) Do(*http.Request) (*http.Response, error) { return nil, errKept }

// BenchmarkWebPushGo is all that the library does for a message but send it: it signs each.
func BenchmarkWebPushGo(b *testing.B) {
	to := newBrowser(b)
	b64 := base64.RawURLEncoding
	private, public, err := push.GenerateVAPIDKeys()
	if err != nil {
		b.Fatal(err)
	}
	s := &push.Subscription{Endpoint: "https://push.example/x", Keys: push.Keys{
		Auth: b64.EncodeToString(to.auth), P256dh: b64.EncodeToString(to.key.PublicKey().Bytes()),
	}}
	o := &push.Options{
		HTTPClient: noNetwork{}, RecordSize: uint32(Size(plaintextSize, 256)), TTL: 60, Subscriber: "ops@example.com",
		VAPIDPublicKey: public, VAPIDPrivateKey: private,
	}
	plaintext := make([]byte, plaintextSize)
	b.ReportAllocs()
	defer cpu(b)(1)
	for b.Loop() {
		if _, err := push.SendNotification(plaintext, s, o); !errors.Is(err, errKept) {
			b.Fatal(err)
		}
	}
}
