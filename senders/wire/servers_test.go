package wire

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// program finds a server's binary, or skips.
func program(tb testing.TB, name string) string {
	tb.Helper()
	for _, file := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(file); err == nil {
			return path
		}
	}
	tb.Skipf("%s is not installed", name)
	return ""
}

// start runs a server on the port of addr until the test ends, and returns when it takes connections.
func start(tb testing.TB, addr, name string, args ...string) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tb.Cleanup(func() {
		cancel()
		<-ended
	})
	for {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			_ = nc.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			tb.Fatalf("%s did not start: %v", name, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freeAddr is an address that nobody listens on.
func freeAddr(tb testing.TB) (addr, port string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	addr = listener.Addr().String()
	_, port, _ = net.SplitHostPort(addr)
	return addr, port
}

// nghttpd serves an empty file as /3/device/abc.
func nghttpd(tb testing.TB, args ...string) (addr string) {
	tb.Helper()
	binary := program(tb, "nghttpd")
	addr, port := freeAddr(tb)
	cert, key := pemFiles(tb)
	root := tb.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "3/device"), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "3/device/abc"), nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	start(tb, addr, binary, append(args, "-a", "127.0.0.1", "-d", root, port, key, cert)...)
	return addr
}

// nginx answers 201 to everything, and closes a connection after a number of requests.
func nginx(tb testing.TB, perConn int) (addr string) {
	tb.Helper()
	binary := program(tb, "nginx")
	addr, _ = freeAddr(tb)
	cert, key := pemFiles(tb)
	dir := tb.TempDir()
	config := fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server {
		listen %[2]s ssl http2; ssl_certificate %[3]s; ssl_certificate_key %[4]s;
		keepalive_requests %[5]d;
		location / { return 201 "made"; }
	}
}`, dir, addr, cert, key, perConn)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	start(tb, addr, binary, "-p", dir, "-e", filepath.Join(dir, "start.log"), "-c", file)
	return addr
}
