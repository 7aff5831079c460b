package exchange_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
)

func client(t *testing.T, ca []byte) *exchange.Client {
	t.Helper()
	config, err := exchange.TLS(ca)
	if err != nil {
		t.Fatal(err)
	}
	c := exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) })
	t.Cleanup(c.Close)
	return c
}

// post does what a library does.
func post(ctx context.Context, c *exchange.Client, x *exchange.Exchange, url string) (*senders.Answer, error) {
	req, err := http.NewRequestWithContext(x.In(ctx), http.MethodPost, url, strings.NewReader("the library's"))
	if err != nil {
		return nil, err
	}
	resp, err := c.HTTP().Do(req)
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("the library was told %d", resp.StatusCode)
		}
	}
	return x.Result(ctx, err)
}

func TestTheAnswerIsKeptAsItCame(t *testing.T) {
	var got string
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.Header.Get("Authorization") + " " + string(b)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
	})
	x := &exchange.Exchange{Body: []byte("ours"), Prepare: func(h http.Header) { h.Set("Authorization", "bearer t") }}
	a, err := post(t.Context(), client(t, s.CA), x, s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got != "bearer t ours" {
		t.Errorf("the server got %q", got)
	}
	if a.Status != 503 || a.Header.Get("Retry-After") != "7" || len(a.Body) != 4096 {
		t.Errorf("got status %d, header %v, %d bytes", a.Status, a.Header, len(a.Body))
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	followed := false
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		followed = followed || r.URL.Path == "/elsewhere"
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	a, err := post(t.Context(), client(t, s.CA), &exchange.Exchange{}, s.URL)
	if err != nil || a.Status != http.StatusTemporaryRedirect || followed {
		t.Errorf("answer %v, error %v, followed %v", a, err, followed)
	}
}

// A burst on a cold client must not open a connection for each request, and one past the peer's stream limit must not wait
// for a free stream.
func TestConnectionsFollowThePeersLimit(t *testing.T) {
	const streams, requests = 20, 50
	var inFlight sync.WaitGroup
	inFlight.Add(requests)
	s := exchangetest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		inFlight.Done()
		inFlight.Wait() // all at once, or the test hangs
	}, func(s *httptest.Server) { s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams} })
	c := client(t, s.CA)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if a, err := post(t.Context(), c, &exchange.Exchange{}, s.URL); err != nil || a.Status != 200 {
				t.Errorf("answer %v, error %v", a, err)
			}
		})
	}
	wg.Wait()
	if n := s.Connections.Load(); n < 3 || n > 6 {
		t.Errorf("%d requests over a limit of %d streams took %d connections", requests, streams, n)
	}
}

func TestRenewOpensOneConnection(t *testing.T) {
	s := exchangetest.Serve(t, func(http.ResponseWriter, *http.Request) {})
	c := client(t, s.CA)
	var old [3]*exchange.Exchange
	for i := range old {
		old[i] = &exchange.Exchange{}
		if _, err := post(t.Context(), c, old[i], s.URL); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range old {
		c.Renew(x)
		if _, err := post(t.Context(), c, &exchange.Exchange{}, s.URL); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Connections.Load(); n != 2 {
		t.Errorf("%d connections were opened, want the first and one more", n)
	}
}

// An urgent request shares no connection with a campaign's, whatever that has in flight.
func TestUrgentHasConnectionsOfItsOwn(t *testing.T) {
	stalled, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	from := map[string]string{}
	s := exchangetest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.URL.Path] = r.RemoteAddr
		mu.Unlock()
		if r.URL.Path == "/bulk" {
			close(stalled)
			<-release
		}
	})
	c := client(t, s.CA)
	var bulk sync.WaitGroup
	bulk.Go(func() {
		if _, err := post(t.Context(), c, &exchange.Exchange{Class: pb.Class_CLASS_BULK}, s.URL+"/bulk"); err != nil {
			t.Error(err)
		}
	})
	<-stalled
	for _, path := range []string{"/urgent", "/again"} {
		if _, err := post(t.Context(), c, &exchange.Exchange{Class: pb.Class_CLASS_URGENT}, s.URL+path); err != nil {
			t.Error(err)
		}
	}
	close(release)
	bulk.Wait()
	if from["/urgent"] == from["/bulk"] || from["/urgent"] != from["/again"] {
		t.Errorf("connections by request: %v", from)
	}
}

func TestVerdictWithoutAnAnswer(t *testing.T) {
	release := make(chan struct{})
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-release
		case "/cut":
			panic(http.ErrAbortHandler) // RST_STREAM
		case "/half":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"reason":`))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	t.Cleanup(func() { close(release) })
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	late, cancelLate := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelLate()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	trusting := client(t, s.CA)
	tests := []struct {
		name   string
		ctx    context.Context
		client *exchange.Client
		url    string
		want   senders.Verdict
	}{
		{"no answer in time", late, trusting, s.URL + "/silent", senders.Verdict{Code: "timeout", Slow: true, Unknown: true, Scope: senders.ScopeDestination}},
		{"stream reset", t.Context(), trusting, s.URL + "/cut", senders.Verdict{Code: "reset", Unknown: true, Scope: senders.ScopeDestination}},
		{"half a refusal", t.Context(), trusting, s.URL + "/half", senders.Verdict{Code: "reset", Unknown: true, Scope: senders.ScopeDestination}},
		{"nobody listens", t.Context(), trusting, "https://" + closed.Addr().String(), senders.Verdict{Code: "dial", Scope: senders.ScopeDestination}},
		{"no such name", t.Context(), trusting, "https://no-such-host.invalid", senders.Verdict{Code: "dns", Scope: senders.ScopeDestination}},
		{"a stranger's certificate", t.Context(), client(t, nil), s.URL, senders.Verdict{Code: "tls", Scope: senders.ScopeDestination}},
		{"stopped by us before it left", over, trusting, s.URL, senders.Verdict{Code: "interrupted"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := post(tt.ctx, tt.client, &exchange.Exchange{}, tt.url)
			if err == nil {
				t.Fatalf("got an answer: %d", a.Status)
			}
			tt.want.Next = senders.Later
			if got := exchange.Verdict(err); got != tt.want {
				t.Errorf("%v\n got %+v\nwant %+v", err, got, tt.want)
			}
		})
	}
	unprocessed := &exchange.Lost{Err: http2.StreamError{Code: http2.ErrCodeRefusedStream}, Sent: true}
	if got := exchange.Verdict(unprocessed); got != (senders.Verdict{Next: senders.Again, Code: "refused-stream"}) {
		t.Errorf("a stream refused before it was processed became %+v", got)
	}
	refusal := &senders.Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "c"}
	if got := exchange.Verdict(fmt.Errorf("x: %w", refusal)); got.Next != senders.End || got.Outcome != refusal.Outcome || got.Code != "c" {
		t.Errorf("a refusal became %+v", got)
	}
	if got := exchange.Verdict(errors.New("EOF")); got.Next != senders.Later || !got.Unknown || got.Code != "connection" {
		t.Errorf("what nobody knows became %+v", got)
	}
}

// A library that makes no request leaves neither answer nor loss, and its reason may quote the message.
func TestNoRequestIsARefusal(t *testing.T) {
	_, err := (&exchange.Exchange{}).Result(t.Context(), errors.New(`invalid image URL: "secret"`))
	var refusal *senders.Refusal
	if !errors.As(err, &refusal) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "invalid image URL") {
		t.Errorf("got %v", err)
	}
}

func TestTLSNamesABadCA(t *testing.T) {
	if _, err := exchange.TLS([]byte("nonsense")); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("got %v", err)
	}
	if c, err := exchange.TLS(nil); err != nil || c.RootCAs != nil || c.MinVersion < tls.VersionTLS12 {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	tests := map[string]time.Duration{
		"": 0, "0": 0, "30": 30 * time.Second, " 5 ": 5 * time.Second, "-3": 0, "soon": 0, "1.5": 0,
		"99999999999999999": 7 * 24 * time.Hour, "99999999999999999999999": 0,
		"Tue, 24 Nov 2026 12:01:30 GMT": 90 * time.Second,
		"Tue, 24 Nov 2026 11:00:00 GMT": 0,
		"Tue, 24 Nov 2036 12:00:00 GMT": 7 * 24 * time.Hour,
	}
	for value, want := range tests {
		if got := exchange.RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("5")
	f.Add("Tue, 24 Nov 2026 12:01:30 GMT")
	f.Fuzz(func(t *testing.T, value string) {
		if d := exchange.RetryAfter(http.Header{"Retry-After": {value}}, time.Now()); d < 0 || d > 7*24*time.Hour {
			t.Errorf("%q: %s", value, d)
		}
	})
}

func TestHistoryTellsTheDeviceFromTheDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h exchange.History
		here, there := senders.Destination{App: "a", Name: "here"}, senders.Destination{App: "a", Name: "there"}
		expect := func(d senders.Destination, want exchange.Standing) {
			t.Helper()
			if got := h.Suspect(d); got != want {
				t.Errorf("%s: standing %d, want %d", d.Name, got, want)
			}
		}
		expect(here, exchange.Unproven)
		h.Success(here)
		expect(here, exchange.Proven)
		expect(there, exchange.Unproven)
		time.Sleep(11 * time.Minute)
		expect(here, exchange.Unproven)
		h.Success(here)
		for range 19 {
			expect(here, exchange.Proven)
		}
		expect(here, exchange.Burst)
		h.Success(here)
		expect(here, exchange.Proven)
	})
}
