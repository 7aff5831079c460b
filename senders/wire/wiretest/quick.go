// Package wiretest is the other end of a connection where the near one is measured: a server that costs next to nothing.
package wiretest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// OK is the header block of a bare 200 (RFC 7541 appendix A).
var OK = []byte{0x88}

// Quick is a server at 127.0.0.1 that says nothing but one answer, a header block, as fast as a Framer can, until the test ends.
// Whoever asks must have closed its connections by then.
func Quick(tb testing.TB, config *tls.Config, answer []byte) (addr string) {
	tb.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(nc, answer) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// serve answers each request by one HEADERS frame when it is whole.
func serve(nc net.Conn, answer []byte) {
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
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: answer, EndHeaders: true, EndStream: true})
			}
		}
	}
}
