package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TLS 1.2 and 1.3 (RFC 9113 section 9.2).
func TestVersionsOfTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			config := clientTLS()
			config.MaxVersion = version
			play(t, Options{TLS: config}, func(t *testing.T, f *farm) {
				f.send(1, 100000)
				p := f.peer(0)
				check(t, "version", p.conn.ConnectionState().Version, version)
				check(t, "server name", p.conn.ConnectionState().ServerName, "wire.test")
				p.answer(1, "200")
				check(t, "end", f.ends(), "200")
			})
		})
	}
}

func TestTLSBefore12IsRefused(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.config.MaxVersion = tls.VersionTLS11
		f.send(1, 1)
		if got := f.ends(); !strings.HasPrefix(got, "not sent: ") || !strings.Contains(got, "protocol version") {
			t.Error(got)
		}
	})
}

// A host that cannot show who it is gets nothing.
func TestACertificateThatIsNotTrusted(t *testing.T) {
	play(t, Options{TLS: &tls.Config{ServerName: "wire.test", RootCAs: x509.NewCertPool()}}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		f.count()
		var unknown x509.UnknownAuthorityError
		if g := f.sink.got[0]; g.Sent || !errors.As(g.Err, &unknown) {
			t.Errorf("sent %t, error %v", g.Sent, g.Err)
		}
	})
}

// TLS 1.3 has the client done before the server has seen its certificate: that it is refused comes with the first read, when
// nothing has been sent yet.
func TestACertificateOfOursThatIsRefused(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.config.ClientAuth = tls.RequireAnyClientCert
		f.send(1, 1)
		f.count()
		var op *net.OpError
		if g := f.sink.got[0]; g.Sent || !errors.As(g.Err, &op) || op.Op != "remote error" || !strings.Contains(g.Err.Error(), "certificate required") {
			t.Errorf("sent %t, error %v", g.Sent, g.Err)
		}
	})
}

// records stands for TLS: it hands up what records hold. Their heads are those of RFC 8446 section 5.1.
type records struct {
	net.Conn
	rest []byte
}

func (r *records) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		var head [5]byte
		if _, err := io.ReadFull(r.Conn, head[:]); err != nil {
			return 0, err
		}
		r.rest = make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(r.Conn, r.rest); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TLS sends records without data of ours (tickets, key updates, padding alone): an answer that came before one does not wait
// for what comes after it.
func TestAnAnswerBeforeARecordWithoutData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		sink := newSink()
		c := New(Options{Addr: "127.0.0.1", MaxConns: 1})
		c.dialing = true // this connection is it
		raw := newBatched(ours)
		k := newConn(c, raw, &records{Conn: raw}, "")
		c.begun(k)
		c.wg.Go(func() { k.run(time.Now().Add(dialTimeout)) })
		var peer sync.WaitGroup
		peer.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
		record := func(b []byte) []byte {
			return append(binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(b))), b...)
		}
		_, _ = theirs.Write(record(settings()))
		c.Send([]*Request{{Path: "/", Handler: sink}})
		synctest.Wait()
		var answer bytes.Buffer
		_ = http2.NewFramer(&answer, nil).WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: literals(":status", "200"), EndHeaders: true, EndStream: true,
		})
		_, _ = theirs.Write(append(record(answer.Bytes()), record(nil)...))
		synctest.Wait()
		if got := len(sink.got); got != 1 {
			t.Errorf("%d answers", got)
		}
		c.Close()
		_ = theirs.Close()
		peer.Wait()
	})
}

// proxy is one that takes CONNECT with a user and password, and notes for which host.
type proxy struct {
	addr string

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, config *tls.Config) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: listener.Addr().String()}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return p
}

func (p *proxy) serve(nc net.Conn) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Method+" "+req.RequestURI+" "+req.Host)
	p.mu.Unlock()
	req.Header.Set("Authorization", req.Header.Get("Proxy-Authorization"))
	if user, password, _ := req.BasicAuth(); user != "u" || password != "p:w" {
		_, _ = io.WriteString(nc, "HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
		return
	}
	there, err := net.Dial("tcp", req.RequestURI)
	if err != nil {
		_, _ = io.WriteString(nc, "HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer there.Close()
	_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(nc, there)
		_ = nc.Close()
	})
	_, _ = io.Copy(there, in)
	_ = there.Close()
	back.Wait()
}

// ask sends one request, and waits for its result.
func ask(t *testing.T, o Options) got {
	t.Helper()
	if o.TLS == nil {
		o.TLS = clientTLS()
	}
	c := New(o)
	defer c.Close()
	s := newSink()
	r := push(s, 1)
	r.Timeout = 20 * time.Second
	c.Send([]*Request{r})
	return s.wait(1)[0]
}

func TestProxies(t *testing.T) {
	host := quick(t, ok)
	for scheme, config := range map[string]*tls.Config{"http": nil, "https": serverTLS()} {
		t.Run(scheme, func(t *testing.T) {
			p := newProxy(t, config)
			through := func(user *url.Userinfo) func(*http.Request) (*url.URL, error) {
				return func(r *http.Request) (*url.URL, error) {
					check(t, "for", r.URL.String(), "https://"+host)
					return &url.URL{Scheme: scheme, Host: p.addr, User: user}, nil
				}
			}
			trust := clientTLS()
			if scheme == "https" {
				trust.InsecureSkipVerify = true // the proxy is 127.0.0.1, which the certificate is not for
			}
			g := ask(t, Options{Addr: host, TLS: trust, Proxy: through(url.UserPassword("u", "p:w"))})
			check(t, "end", g.String(), "200")
			check(t, "asked", strings.Join(p.asked, "; "), "CONNECT "+host+" "+host)

			g = ask(t, Options{Addr: host, TLS: trust, Proxy: through(url.UserPassword("u", "secret"))})
			check(t, "end", g.String(), "not sent: dial tcp: through the proxy "+p.addr+": it answered CONNECT with 407 Proxy Authentication Required")

			g = ask(t, Options{Addr: host, TLS: trust, Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }})
			check(t, "without one", g.String(), "200")
			check(t, "asked", len(p.asked), 2)
		})
	}
	g := ask(t, Options{Addr: host, Proxy: func(*http.Request) (*url.URL, error) { return url.Parse("socks5://u:secret@127.0.0.1:1") }})
	check(t, "another scheme", g.String(), `not sent: dial tcp: through the proxy 127.0.0.1:1: its scheme is "socks5": only http and https are known`)
	g = ask(t, Options{Addr: host, Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New("no such proxy") }})
	check(t, "none to be had", g.String(), "not sent: dial tcp: no such proxy")
}
