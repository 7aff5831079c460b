package wire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink collects results, and what they refer to.
type sink struct {
	mu   sync.Mutex
	cond *sync.Cond
	got  []got
}

type got struct {
	Result
	body string
}

func newSink() *sink {
	s := &sink{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *sink) Answered(results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		r.Header.fields = slices.Clone(r.Header.fields)
		s.got = append(s.got, got{r, string(r.Body)})
	}
	s.cond.Broadcast()
}

// wait returns when n results have come.
func (s *sink) wait(n int) []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.got) < n {
		s.cond.Wait()
	}
	return s.got
}

func TestAgainstNetHTTP(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Asked", r.Header.Get("Asked")+r.Header.Get("Same"))
			w.Header().Set("Proto", r.Proto)
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
		}))
		server.EnableHTTP2 = h2
		server.StartTLS()
		defer server.Close()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		c := New(Options{Addr: server.Listener.Addr().String(), TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}, MaxConns: 2})
		defer c.Close()
		s := newSink()
		var batch []*Request
		for i := range 1000 {
			batch = append(batch, &Request{
				Path: fmt.Sprintf("/%d", i), Body: []byte(strings.Repeat("x", i)), Handler: s, Timeout: 10 * time.Second,
				Fields: []Field{{Name: "asked", Value: fmt.Sprint(i)}, {Name: "same", Value: "s", Kind: Shared}},
				Tag:    i,
			})
		}
		c.Send(batch)
		for _, g := range s.wait(1000) {
			i := g.Request.Tag.(int)
			if want := fmt.Sprintf("POST /%d %s", i, strings.Repeat("x", i)); g.Err != nil || g.Status != 418 || g.body != want {
				t.Fatalf("request %d: status %d, error %v, body %q", i, g.Status, g.Err, g.body)
			}
			if a := g.Header.Get("asked"); a != fmt.Sprintf("%ds", i) {
				t.Fatalf("request %d: header %q", i, a)
			}
			if p := g.Header.Get("proto"); (p == "HTTP/2.0") != h2 {
				t.Fatal(p)
			}
		}
	}
}

// through sends n requests with bodies of up to 8 KiB, 300 at a time, and counts the statuses.
func through(t *testing.T, o Options, n int) map[int]int {
	t.Helper()
	o.TLS = clientTLS()
	c := New(o)
	defer c.Close()
	s := newSink()
	for sent := 0; sent < n; sent += 300 {
		var batch []*Request
		for i := sent; i < min(sent+300, n); i++ {
			r := push(s, i)
			r.Body = make([]byte, i%8192)
			r.Timeout = 30 * time.Second
			batch = append(batch, r)
		}
		c.Send(batch)
		s.wait(sent + len(batch))
	}
	statuses := map[int]int{}
	for _, g := range s.got {
		statuses[g.Status]++
		if g.Err != nil {
			t.Error(g.Err)
		}
	}
	return statuses
}

func TestAgainstNghttpd(t *testing.T) {
	for name, args := range map[string][]string{
		"as it is":      nil,
		"small windows": {"-w", "10", "-W", "12", "-m", "7", "-c", "64"},
		"large ones":    {"-w", "20", "-W", "30", "-m", "5000", "-b", "100"},
		"trailers":      {"--trailer", "a: b"},
		"early":         {"--early-response"},
	} {
		t.Run(name, func(t *testing.T) {
			got := through(t, Options{Addr: nghttpd(t, args...), MaxConns: 1}, 2000)
			if got[200] != 2000 {
				t.Errorf("statuses %v", got)
			}
		})
	}
}

// nginx says GOAWAY after a number of requests, and answers those before it: none is lost, and none is an error.
func TestAgainstNginx(t *testing.T) {
	got := through(t, Options{Addr: nginx(t, 100), MaxConns: 2}, 2000)
	if got[201] != 2000 {
		t.Errorf("statuses %v", got)
	}
}
