// Package exchangetest serves tests of the platforms with a provider of their own making, over HTTP/2 and TLS. The one
// thing to know is [Serve].
package exchangetest

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Server is a provider with one answer.
type Server struct {
	*httptest.Server
	// CA is the certificate to trust, PEM.
	CA []byte
	// Connections counts those that were opened.
	Connections atomic.Int64
}

// Serve starts a server on a free port of the loopback, until the test ends. It fails the test on a request that is not
// HTTP/2. Each prepare may change the server before it starts.
func Serve(t testing.TB, handler http.HandlerFunc, prepare ...func(*httptest.Server)) *Server {
	t.Helper()
	s := &Server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("a request came over %s", r.Proto)
		}
		handler(w, r)
	}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.Connections.Add(1)
		}
	}
	for _, p := range prepare {
		p(s.Server)
	}
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections() // a client's idle connection would hold Close up
		s.Close()
	})
	s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s
}
