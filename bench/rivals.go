package bench

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	vapid "github.com/SherClockHolmes/webpush-go"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"google.golang.org/api/option"
)

// together is how many goroutines ask at the same time where a library has one a request: enough to keep the server busy,
// and few enough that they do not wait for each other.
const together = 128

// spin calls ask from so many goroutines for a while, and is the sample of the calls that it made.
func spin(ctx context.Context, s *server, goroutines int, d time.Duration, each int, ask func(context.Context) error) (sample, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m, err := newMeter(s.process)
	if err != nil {
		return sample{}, err
	}
	var calls atomic.Int64
	var once sync.Once
	var failed error
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for ctx.Err() == nil && time.Since(m.began) < d {
				if err := ask(ctx); err != nil {
					once.Do(func() { failed = err })
					stop()
					return
				}
				calls.Add(int64(each))
			}
		})
	}
	all.Wait()
	if failed == nil {
		failed = context.Cause(ctx)
	}
	if failed != nil {
		return sample{}, failed
	}
	return m.end(int(calls.Load()))
}

// h2Transport is what the libraries use by default, trusting the server.
func h2Transport(s *server) *http.Transport {
	return &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: together}
}

// h2load is nghttp2's load generator, in C: as fast as HTTP/2 goes on one connection. It sends so many requests.
func h2load(ctx context.Context, s *server, n int, body string, headers []string) (sample, error) {
	program, err := tool("h2load", "nghttp2-client")
	if err != nil {
		return sample{}, err
	}
	m, err := newMeter(s.process)
	if err != nil {
		return sample{}, err
	}
	args := []string{"-n", strconv.Itoa(n), "-c", "1", "-m", strconv.Itoa(inFlight), "-d", body}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	out, cpu, err := ran(ctx, program, append(args, s.url()+nghttpdPath)...)
	if err != nil {
		return sample{}, err
	}
	got, err := m.end(n)
	if err != nil {
		return sample{}, err
	}
	seconds, err := h2loadSeconds(out, n)
	got.cpu, got.allocs, got.wall, got.value = cpu, noAllocs, seconds, float64(n)/seconds.Seconds()
	return got, err
}

var (
	h2loadFinished  = regexp.MustCompile(`(?m)^finished in ([0-9.]+[a-z]+), `)
	h2loadSucceeded = regexp.MustCompile(`(?m)^requests: .* (\d+) succeeded, `)
)

// h2loadSeconds is the time that all its requests took, by its own report.
func h2loadSeconds(out []byte, n int) (time.Duration, error) {
	finished, succeeded := h2loadFinished.FindSubmatch(out), h2loadSucceeded.FindSubmatch(out)
	if finished == nil || succeeded == nil || string(succeeded[1]) != strconv.Itoa(n) {
		return 0, fmt.Errorf("h2load did not say that %d requests succeeded:\n%s", n, out)
	}
	return time.ParseDuration(string(finished[1]))
}

// apns2Side is apns2's client with its own transport, one goroutine a request as it is made for.
func apns2Side(s *server, body []byte, d time.Duration) (func(context.Context) (sample, error), error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	client := &apns2.Client{
		Host: s.url(), HTTPClient: &http.Client{Transport: h2Transport(s)},
		Token: &token.Token{AuthKey: key, KeyID: "ABCDEFGHIJ", TeamID: "0123456789"},
	}
	push := func(ctx context.Context) error {
		r, err := client.PushWithContext(ctx, &apns2.Notification{
			DeviceToken: nghttpdToken, Topic: "com.example.bench", PushType: apns2.PushTypeAlert, Payload: body,
		})
		if err == nil && !r.Sent() {
			err = fmt.Errorf("status %d", r.StatusCode)
		}
		return err
	}
	return func(ctx context.Context) (sample, error) { return spin(ctx, s, together, d, 1, push) }, nil
}

// sendEachSide is firebase's SendEach, 500 messages a call, which is its limit.
func sendEachSide(ctx context.Context, s *server, body []byte, d time.Duration) (func(context.Context) (sample, error), error) {
	fire, err := firebase.NewApp(
		ctx, &firebase.Config{ProjectID: "belfry-" + benchApp},
		option.WithHTTPClient(&http.Client{Transport: h2Transport(s)}), option.WithEndpoint(s.url()+"/v1"),
	)
	if err != nil {
		return nil, err
	}
	client, err := fire.Messaging(ctx)
	if err != nil {
		return nil, err
	}
	var envelope struct{ Message messaging.Message }
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, err
	}
	batch := make([]*messaging.Message, 500)
	for i := range batch {
		batch[i] = &envelope.Message
	}
	send := func(ctx context.Context) error {
		r, err := client.SendEach(ctx, batch)
		if err == nil && r.FailureCount > 0 {
			for _, one := range r.Responses {
				err = errors.Join(err, one.Error)
			}
		}
		return err
	}
	return func(ctx context.Context) (sample, error) { return spin(ctx, s, 1, d, len(batch), send) }, nil
}

// webpushGoSide is webpush-go's SendNotification, one goroutine a message.
func webpushGoSide(s *server, plaintext []byte, d time.Duration) (func(context.Context) (sample, error), error) {
	private, public, err := vapid.GenerateVAPIDKeys()
	if err != nil {
		return nil, err
	}
	browser, err := newBrowser()
	if err != nil {
		return nil, err
	}
	o := &vapid.Options{
		HTTPClient: &http.Client{Transport: h2Transport(s)}, Subscriber: "ops@example.com", TTL: 3600,
		VAPIDPublicKey: public, VAPIDPrivateKey: private,
	}
	to := &vapid.Subscription{Endpoint: s.url() + pushPath, Keys: browser}
	send := func(ctx context.Context) error {
		r, err := vapid.SendNotificationWithContext(ctx, plaintext, to, o)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r.Body)
		if r.Body.Close(); r.StatusCode != http.StatusOK {
			err = errors.Join(err, fmt.Errorf("status %d", r.StatusCode))
		}
		return err
	}
	return func(ctx context.Context) (sample, error) { return spin(ctx, s, together, d, 1, send) }, nil
}

// ecdhSide is what RFC 8291 asks of P-256 for each message, with the standard library and nothing else: a key pair, and
// the secret it shares with the browser's public key. One goroutine a core.
func ecdhSide(s *server, cores int, d time.Duration) (func(context.Context) (sample, error), error) {
	browser, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	public := browser.PublicKey()
	agree := func(context.Context) error {
		own, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		_, err = own.ECDH(public)
		return err
	}
	return func(ctx context.Context) (sample, error) { return spin(ctx, s, cores, d, 1, agree) }, nil
}

// newBrowser is a subscription's keys (RFC 8291 section 3).
func newBrowser() (vapid.Keys, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return vapid.Keys{}, err
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth) // never fails
	b64 := base64.RawURLEncoding
	return vapid.Keys{P256dh: b64.EncodeToString(key.PublicKey().Bytes()), Auth: b64.EncodeToString(auth)}, nil
}
