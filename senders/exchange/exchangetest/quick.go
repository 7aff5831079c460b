package exchangetest

import (
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"testing"

	"github.com/belfry/belfry/senders/wire/wiretest"
)

// Quick is a server that says nothing but 200, as fast as a Framer can, until the test ends: for benchmarks of what asks.
func Quick(t testing.TB) (url string, ca []byte) {
	t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	addr := wiretest.Quick(t, &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}}, wiretest.OK)
	return "https://" + addr, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
}
