package wire

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// old is a host that speaks only HTTP/1.1, and the client of it.
func old(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	c := New(Options{Addr: server.Listener.Addr().String(), TLS: clientTLS(), MaxConns: 1})
	t.Cleanup(c.Close)
	return server, c
}

func TestHTTP1(t *testing.T) {
	let := make(chan struct{})
	var flying, most atomic.Int64
	_, c := old(t, func(w http.ResponseWriter, r *http.Request) {
		n := flying.Add(1)
		defer flying.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/wait":
			select {
			case <-let:
			case <-r.Context().Done():
			}
		case "/large":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write(make([]byte, 10000))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusBadGateway)
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Retry-After", r.Header.Get("Own")+r.Proto+string(body))
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	end := func(path string, timeout time.Duration) got {
		s := newSink()
		c.Send([]*Request{{Path: path, Body: []byte("b"), Handler: s, Timeout: timeout, Fields: []Field{{Name: "own", Value: "o;"}}}})
		return s.wait(1)[0]
	}
	g := end("/", 0)
	check(t, "end", g.String(), "429")
	check(t, "sent", g.Sent, true)
	check(t, "header", g.Header.Get("retry-after"), "o;HTTP/1.1b")
	check(t, "late", end("/wait", 50*time.Millisecond).String(), "sent: "+errLate.Error())
	g = end("/large", 0)
	check(t, "large", g.String(), "400")
	check(t, "body", len(g.body), maxBody)
	check(t, "cut", strings.HasPrefix(end("/cut", 0).String(), "sent: "), true)
	check(t, "a path that is none", end("/%zz", 0).String(), "not sent: the path makes no URL")

	// More than there are connections: they wait, and are not more at a time.
	s := newSink()
	var batch []*Request
	for range 3 * plainPerConn {
		batch = append(batch, &Request{Path: "/wait", Handler: s})
	}
	c.Send(batch)
	close(let)
	s.wait(len(batch))
	if n := most.Load(); n > plainPerConn {
		t.Errorf("%d at a time", n)
	}
}

// Close ends requests in flight over HTTP/1.1 too.
func TestHTTP1Close(t *testing.T) {
	began := make(chan struct{}, 100)
	_, c := old(t, func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	})
	s := newSink()
	var batch []*Request
	for range 2 * plainPerConn {
		batch = append(batch, &Request{Path: "/", Handler: s})
	}
	c.Send(batch)
	<-began
	c.Close()
	for _, g := range s.wait(len(batch)) {
		if g.Err != ErrClosed {
			t.Errorf("end %v", g)
		}
	}
}

// A host that learned HTTP/2 is found out when its fallback is retired.
func TestHTTP1Retired(t *testing.T) {
	server, c := old(t, func(http.ResponseWriter, *http.Request) {})
	modern := quick(t, ok)
	defer c.Close() // before that server waits for its connections to end
	var target atomic.Value
	target.Store(server.Listener.Addr().String())
	c.o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, target.Load().(string))
	}
	s := newSink()
	c.Send([]*Request{push(s, 1)})
	first := s.wait(1)[0]
	if _, old := first.via.(*plain); !old || first.Status != 200 {
		t.Fatalf("the first came by %T: %v", first.via, first)
	}
	target.Store(modern)
	c.Retire(&first.Result)
	c.Retire(&first.Result)
	c.Send([]*Request{push(s, 2)})
	if second := s.wait(2)[1]; second.Status != 200 {
		t.Errorf("then %v", second)
	} else if _, new := second.via.(*conn); !new {
		t.Errorf("then by %T", second.via)
	}
}
