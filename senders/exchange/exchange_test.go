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
	"time"

	"golang.org/x/net/http2"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/exchange"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/senders/wire"
)

func client(t *testing.T, ca []byte) *exchange.Client {
	t.Helper()
	config, err := exchange.TLS(ca)
	if err != nil {
		t.Fatal(err)
	}
	c := exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) }, exchange.Never)
	t.Cleanup(c.Close)
	return c
}

// carried is a request's way through a library.
type carried struct {
	body    string
	prepare func(http.Header)
	class   pb.Class
}

// result is handed over by a handler.
type result chan wire.Result

func (r result) Answered(results []wire.Result) { r <- results[0] }

// carry does what a platform does.
func carry(ctx context.Context, c *exchange.Client, by carried, url string) wire.Result {
	answered := make(result, 1)
	r := &senders.Request{Delivery: &pb.Delivery{Class: by.class}, Request: wire.Request{Handler: answered}}
	if at, ok := ctx.Deadline(); ok {
		r.Timeout = time.Until(at)
	}
	c.Carry([]*senders.Request{r}, func(ctx context.Context, x *exchange.Exchange, _ *senders.Request) error {
		x.Prepare = by.prepare
		if by.body != "" {
			x.Body = []byte(by.body)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("the library's"))
		if err != nil {
			return err
		}
		resp, err := c.HTTP().Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("the library was told %d", resp.StatusCode)
			}
		}
		return err
	})
	return <-answered
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
	by := carried{body: "ours", prepare: func(h http.Header) { h.Set("Authorization", "bearer t") }}
	a := carry(t.Context(), client(t, s.CA), by, s.URL)
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	if got != "bearer t ours" {
		t.Errorf("the server got %q", got)
	}
	if a.Status != 503 || a.Header.Get("retry-after") != "7" || len(a.Body) != 4096 {
		t.Errorf("got status %d, header %v, %d bytes", a.Status, a.Header, len(a.Body))
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	followed := false
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		followed = followed || r.URL.Path == "/elsewhere"
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	a := carry(t.Context(), client(t, s.CA), carried{}, s.URL)
	if a.Status != http.StatusTemporaryRedirect || followed {
		t.Errorf("answer %v, followed %v", a, followed)
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
			if a := carry(t.Context(), c, carried{}, s.URL); a.Status != 200 {
				t.Errorf("answer %v", a)
			}
		})
	}
	wg.Wait()
	if n := s.Connections.Load(); n < 3 || n > 6 {
		t.Errorf("%d requests over a limit of %d streams took %d connections", requests, streams, n)
	}
}

func TestAStaleConnectionIsReplacedOnce(t *testing.T) {
	var all sync.WaitGroup
	all.Add(3)
	s := exchangetest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stale" {
			all.Done()
			all.Wait() // all of them on the first connection
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	config, err := exchange.TLS(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	c := exchange.NewClient(func() *http.Transport { return exchange.HTTP2(config) }, func(res *wire.Result) bool { return res.Status == 503 })
	t.Cleanup(c.Close)
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() { carry(t.Context(), c, carried{}, s.URL+"/stale") })
	}
	asking.Wait()
	for range 2 {
		if a := carry(t.Context(), c, carried{}, s.URL); a.Status != 200 {
			t.Errorf("answer %v", a)
		}
	}
	if n := s.Connections.Load(); n != 2 {
		t.Errorf("%d connections were opened, want the first and one more", n)
	}
}

// What is in flight at the end is told so, and nothing goes after it.
func TestCloseEndsWhatIsInFlight(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	s := exchangetest.Serve(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	defer close(release)
	c := client(t, s.CA)
	ended := make(chan wire.Result, 1)
	go func() { ended <- carry(t.Context(), c, carried{}, s.URL) }()
	<-arrived
	c.Close()
	if a := <-ended; !errors.Is(a.Err, wire.ErrClosed) {
		t.Errorf("in flight: %+v", a)
	}
	if a := carry(t.Context(), c, carried{}, s.URL); !errors.Is(a.Err, wire.ErrClosed) || a.Sent {
		t.Errorf("afterwards: %+v", a)
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
		if a := carry(t.Context(), c, carried{class: pb.Class_CLASS_BULK}, s.URL+"/bulk"); a.Err != nil {
			t.Error(a.Err)
		}
	})
	<-stalled
	for _, path := range []string{"/urgent", "/again"} {
		if a := carry(t.Context(), c, carried{class: pb.Class_CLASS_URGENT}, s.URL+path); a.Err != nil {
			t.Error(a.Err)
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
	over := client(t, s.CA)
	over.Close()
	trusting := client(t, s.CA)
	tests := []struct {
		name   string
		within time.Duration
		client *exchange.Client
		url    string
		want   senders.Verdict
	}{
		{"stream reset", time.Minute, trusting, s.URL + "/cut", senders.Verdict{Code: "reset", Unknown: true, Of: senders.OfDevice | senders.OfService}},
		// It has a connection by now, so that it leaves long before.
		{"no answer in time", time.Second / 2, trusting, s.URL + "/silent", senders.Verdict{Code: "timeout", Slow: true, Unknown: true, Of: senders.OfDevice | senders.OfService}},
		{"half a refusal", time.Minute, trusting, s.URL + "/half", senders.Verdict{Code: "reset", Unknown: true, Of: senders.OfDevice | senders.OfService}},
		{"nobody listens", time.Minute, trusting, "https://" + closed.Addr().String(), senders.Verdict{Code: "dial", Of: senders.OfDevice | senders.OfService}},
		{"no such name", time.Minute, trusting, "https://no-such-host.invalid", senders.Verdict{Code: "dns", Of: senders.OfDevice | senders.OfService}},
		{"a stranger's certificate", time.Minute, client(t, nil), s.URL, senders.Verdict{Code: "tls", Of: senders.OfDevice | senders.OfService}},
		{"stopped by us before it left", time.Minute, over, s.URL, senders.Verdict{Code: "interrupted"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.within)
			defer cancel()
			a := carry(ctx, tt.client, carried{}, tt.url)
			if a.Err == nil {
				t.Fatalf("got an answer: %d", a.Status)
			}
			tt.want.Next = senders.Later
			if got := exchange.Verdict(&a); got != tt.want {
				t.Errorf("%v\n got %+v\nwant %+v", a.Err, got, tt.want)
			}
		})
	}
	unprocessed := &wire.Result{Err: http2.StreamError{Code: http2.ErrCodeRefusedStream}, Sent: true}
	if got := exchange.Verdict(unprocessed); got != (senders.Verdict{Next: senders.Again, Code: "refused-stream"}) {
		t.Errorf("a stream refused before it was processed became %+v", got)
	}
	refusal := &senders.Refusal{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "c"}
	if got := exchange.Verdict(&wire.Result{Err: fmt.Errorf("x: %w", refusal)}); got.Next != senders.End || got.Outcome != refusal.Outcome || got.Code != "c" {
		t.Errorf("a refusal became %+v", got)
	}
	invalid := &wire.Result{Err: fmt.Errorf("x: %w", &wire.InvalidError{Field: ":path"})}
	if got := exchange.Verdict(invalid); got != (senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-request"}) {
		t.Errorf("a request that cannot be written: got %+v", got)
	}
	alert := &wire.Result{Err: &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}}
	if got := exchange.Verdict(alert); got.Code != "tls" || got.Unknown || got.Of != senders.OfDevice|senders.OfService {
		t.Errorf("the peer's alert: got %+v", got)
	}
	if got := exchange.Verdict(&wire.Result{Err: errors.New("EOF"), Sent: true}); got.Next != senders.Later || !got.Unknown || got.Code != "connection" {
		t.Errorf("what nobody knows became %+v", got)
	}
}

// A library that makes no request leaves neither answer nor loss, and its reason may quote the message.
func TestNoRequestIsARefusal(t *testing.T) {
	answered := make(result, 1)
	r := &senders.Request{Delivery: &pb.Delivery{}, Request: wire.Request{Handler: answered}}
	client(t, nil).Carry([]*senders.Request{r}, func(context.Context, *exchange.Exchange, *senders.Request) error {
		return errors.New(`invalid image URL: "secret"`)
	})
	err := (<-answered).Err
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
		if got := exchange.RetryAfter(wire.NewHeader(http.Header{"Retry-After": {value}}), now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("5")
	f.Add("Tue, 24 Nov 2026 12:01:30 GMT")
	f.Fuzz(func(t *testing.T, value string) {
		if d := exchange.RetryAfter(wire.NewHeader(http.Header{"Retry-After": {value}}), time.Now()); d < 0 || d > 7*24*time.Hour {
			t.Errorf("%q: %s", value, d)
		}
	})
}
