package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a client that shows each frame.
type raw struct {
	*http2.Framer
	t     testing.TB
	conn  *tls.Conn
	sim   *Simulator
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
}

func dialRaw(t testing.TB, s *Simulator, svc Service) *raw {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	c, err := tls.Dial("tcp", s.Address(svc), &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := &raw{Framer: http2.NewFramer(c, c), t: t, conn: c, sim: s, next: 1}
	r.enc = hpack.NewEncoder(&r.block)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// streams reads on to the next SETTINGS, answers it, and returns the number of streams that it allows.
func (r *raw) streams() uint32 {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Fatal(err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			n, _ := s.Value(http2.SettingMaxConcurrentStreams)
			if err := r.WriteSettingsAck(); err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
}

// push sends one message, and returns its status and what the SETTINGS before it allowed, 0 if there were none.
func (r *raw) push(device, auth string) (status string, raised uint32) {
	r.t.Helper()
	r.block.Reset()
	header := apnsHeader(r.t, app(r.t, r.sim, "demo"))
	header["Authorization"] = auth
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":authority", "x"},
		{":path", apnsPath + device},
		{"authorization", auth},
		{"apns-topic", header["apns-topic"]},
		{"apns-push-type", "alert"},
	} {
		_ = r.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	id := r.next
	r.next += 2
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true})
	if err = errors.Join(err, r.WriteData(id, true, alert)); err != nil {
		r.t.Fatal(err)
	}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				raised, _ = f.Value(http2.SettingMaxConcurrentStreams)
				_ = r.WriteSettingsAck() // the next frame fails too
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status"), raised
			}
		case *http2.GoAwayFrame:
			r.t.Fatalf("GOAWAY %v", f.ErrCode)
		}
	}
}

// TestOneStreamUntilTheFirstToken: APNs holds a new connection to one stream, until it has accepted a provider token.
func TestOneStreamUntilTheFirstToken(t *testing.T) {
	s := start(t, nil)
	device := s.world.apnsToken(pick(t, s, "demo", APNs, Healthy).target)
	r := dialRaw(t, s, APNs)
	if n := r.streams(); n != 1 {
		t.Fatalf("a new connection is allowed %d streams", n)
	}
	if status, raised := r.push(device, "bearer no.such.token"); status != "403" || raised != 0 {
		t.Errorf("a wrong token: %s, streams %d", status, raised)
	}
	good := "bearer " + apnsJWT(t, app(t, s, "demo"), time.Now(), nil)
	if status, raised := r.push(device, good); status != "200" || raised != 1000 {
		t.Errorf("the first token: %s, streams %d", status, raised)
	}
	for range 3 { // the server has not noticed
		if status, raised := r.push(device, good); status != "200" || raised != 0 {
			t.Errorf("afterwards: %s, streams %d", status, raised)
		}
	}
}

// TestResetCodes: a reset has the code that is asked for.
func TestResetCodes(t *testing.T) {
	s := start(t, nil)
	for _, svc := range []Service{APNs, FCM} {
		p := newPusher(t, s, "demo", svc)
		for code, want := range map[string]http2.ErrCode{
			"": http2.ErrCodeInternal, "CANCEL": http2.ErrCodeCancel, "ENHANCE_YOUR_CALM": http2.ErrCodeEnhanceYourCalm,
		} {
			setFault(t, s, "f", Fault{Kind: Reset, Code: code})
			var stream http2.StreamError
			if _, err := p.push(context.Background(), 1); !errors.As(err, &stream) || stream.Code != want {
				t.Errorf("%s %q: %v", svc, code, err)
			}
			if struck(t, s, "f") == 0 {
				t.Errorf("%s %q did not strike", svc, code)
			}
			s.ClearFaults()
		}
		p.want(2, 200)
	}
}
