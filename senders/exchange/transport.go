package exchange

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// pingAfter is the silence after which a connection is asked whether it lives, and pongWithin how long it has to say
	// so. Together they are how long a connection cut without a word can keep deliveries waiting.
	pingAfter  = 10 * time.Second
	pongWithin = 5 * time.Second
	// idleFor is long because Apple asks to keep connections for hours, and takes opening and closing for an attack.
	idleFor = time.Hour
)

// TLS trusts the given certificates (PEM), or the system's when there are none.
func TLS(ca []byte) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("the CA file holds no certificate in PEM form: give the certificate that signed the provider's")
		}
	}
	return c, nil
}

// HTTP2 makes a transport that speaks HTTP/2 over TLS and nothing else.
func HTTP2(c *tls.Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     c.Clone(),
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           protocols,
		// For HTTP/2 this bounds the dials at a time, not the connections: one that is full or going away is no longer
		// counted, so the next is opened when the peer's SETTINGS ask for it. Without it each of the first hundred
		// requests would open its own.
		MaxConnsPerHost:    1,
		IdleConnTimeout:    idleFor,
		DisableCompression: true,
		HTTP2:              Pings(),
	}
}

// Pings finds out connections that were cut without a word.
func Pings() *http.HTTP2Config {
	return &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pongWithin}
}
