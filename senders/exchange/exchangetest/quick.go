package exchangetest

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// Quick is a server that says nothing but 200, as fast as a Framer can, until the test ends: for benchmarks of what asks.
func Quick(t testing.TB) (url string, ca []byte) {
	t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { quick(nc) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait() // the client has closed its connections by now
	})
	return "https://" + listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
}

// quick answers each request by one HEADERS frame when it is whole.
func quick(nc net.Conn) {
	defer nc.Close()
	in, out := bufio.NewReaderSize(nc, 64<<10), bufio.NewWriterSize(nc, 16<<10)
	if _, err := io.CopyN(io.Discard, in, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(out, in)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
	_ = f.WriteWindowUpdate(0, 1<<30)
	credit := 0
	for {
		if in.Buffered() < 9 && out.Flush() != nil {
			return
		}
		h, err := f.ReadFrameHeader()
		if err != nil {
			return
		}
		if _, err := in.Discard(int(h.Length)); err != nil {
			return
		}
		switch {
		case h.Type == http2.FrameSettings && !h.Flags.Has(http2.FlagSettingsAck):
			_ = f.WriteSettingsAck()
		case h.Type == http2.FrameData:
			if credit += int(h.Length); credit > 1<<28 {
				_ = f.WriteWindowUpdate(0, uint32(credit))
				credit = 0
			}
			fallthrough
		case h.Type == http2.FrameHeaders:
			if h.Flags.Has(http2.FlagDataEndStream) {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
			}
		}
	}
}
