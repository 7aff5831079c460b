package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// server is an HTTP/2 server in C on loopback, in a process of its own with one thread: one in Go would cost more than the
// client that is measured.
type server struct {
	*process
	addr string // host:port
	ca   []byte // PEM
}

// url is the server's, without a path.
func (s *server) url() string { return "https://" + s.addr }

// tls trusts it.
func (s *server) tls() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// streams is how many a connection may have open: what Apple allows.
const streams = 1000

// nginxConf stands in for all providers. They answer what a delivery's success needs and nothing else.
const nginxConf = `
daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid; error_log %[1]s/nginx.errors warn;
events { worker_connections 1024; }
http {
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	keepalive_requests 2000000000; keepalive_timeout 1h; http2_max_concurrent_streams %[3]d;
	log_format apns '$msec $http_apns_id'; log_format webpush '$msec $http_topic'; access_log off;
	server {
		listen %[2]s ssl http2; ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem;
		location /3/device/ { return 200; }
		location /3/device/%[4]s { access_log %[1]s/arrivals apns; return 200; }
		location /%[4]s { access_log %[1]s/arrivals webpush; return 201; }
		location /v1/ { default_type application/json; return 200 '{"name":"projects/p/messages/1"}'; }
		location /token { default_type application/json; return 200 '{"access_token":"t","expires_in":3600,"token_type":"Bearer"}'; }
		location / { return 201; }
	}
}
`

// mark is what the APNs tokens, and the paths of the subscriptions, begin with whose requests nginx notes in the file arrivals.
const mark = "feedfeedfeedfeed"

// startNginx starts one that answers as APNs, FCM with its token server, and web push services do when all is well.
func startNginx(ctx context.Context, dir string) (*server, error) {
	program, err := tool("nginx", "nginx-light")
	if err != nil {
		return nil, err
	}
	s, err := newServer(dir)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, s.addr, streams, mark), 0o600); err != nil {
		return nil, err
	}
	return s, s.serve(ctx, dir, "nginx", program, "-c", conf, "-p", dir)
}

const (
	// nghttpdPath is where every APNs push goes that nghttpd takes: it serves files, and refuses all else.
	nghttpdPath  = "/3/device/" + nghttpdToken
	nghttpdToken = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	// fcmPath is that of a simulated app's project.
	fcmPath = "/v1/projects/belfry-" + benchApp + "/messages:send"
	// pushPath is every subscription's.
	pushPath = "/push/abc"
)

// nghttpdFiles are its answers, by path.
var nghttpdFiles = map[string]string{
	nghttpdPath: "",
	fcmPath:     `{"name":"projects/p/messages/1"}`,
	pushPath:    "",
	"/token":    `{"access_token":"t","expires_in":3600,"token_type":"Bearer"}`,
}

// startNghttpd starts the fastest one, which answers as APNs does for one device, as FCM with its token server for one project,
// and, with 200 rather than 201, as a web push service for one subscription.
func startNghttpd(ctx context.Context, dir string) (*server, error) {
	program, err := tool("nghttpd", "nghttp2-server")
	if err != nil {
		return nil, err
	}
	s, err := newServer(dir)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "htdocs")
	for path, answer := range nghttpdFiles {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(answer), 0o600); err != nil {
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, err
	}
	return s, s.serve(ctx, dir, "nghttpd", program, "-a", host, "-d", root, "-n", "1", "-m", fmt.Sprint(streams), port,
		filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem"))
}

func (s *server) serve(ctx context.Context, dir, name, program string, args ...string) (err error) {
	if s.process, err = start(dir, name, nil, program, args...); err != nil {
		return err
	}
	return s.await(ctx, func() bool {
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// newServer takes a free port, and writes a certificate to dir.
func newServer(dir string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: l.Addr().String()}
	l.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "belfry bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), s.ca, 0o600); err != nil {
		return nil, err
	}
	return s, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
