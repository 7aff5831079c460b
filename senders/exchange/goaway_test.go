package exchange_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// leaver is a provider whose first connection sees a number of requests, says GOAWAY with the first of them as the last that
// it has begun, and answers that one. Connections after it answer everything.
type leaver struct {
	t      *testing.T
	leaves int

	mu sync.Mutex
	// begun are the requests that were processed, by their header "Number".
	begun map[string]int
}

func (l *leaver) serve(conn net.Conn, first bool) {
	defer conn.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	var seen []*http2.MetaHeadersFrame
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if !first {
				l.answer(f, frame)
				continue
			}
			if seen = append(seen, frame); len(seen) == l.leaves {
				_ = f.WriteGoAway(seen[0].StreamID, http2.ErrCodeNo, nil)
				l.answer(f, seen[0])
			}
		}
	}
}

func (l *leaver) answer(f *http2.Framer, request *http2.MetaHeadersFrame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range request.Fields {
		if h.Name == "number" {
			l.begun[h.Value]++
		}
	}
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"}); err != nil {
		l.t.Error(err)
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: request.StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

// Requests above a GOAWAY's last stream were not processed (RFC 9113 section 6.8): they go out again at once, on another
// connection, and are neither lost nor sent twice, nor do they count as an attempt.
func TestRequestsAboveAGoAwayAreRepeatedAtOnce(t *testing.T) {
	const requests = 20
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	l := &leaver{t: t, leaves: requests, begun: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for first := true; ; first = false {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { l.serve(conn, first) })
		}
	})
	c := client(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw}))
	var asking sync.WaitGroup
	for i := range requests {
		asking.Go(func() {
			by := carried{body: "ours", prepare: func(h http.Header) { h.Set("Number", fmt.Sprint(i)) }}
			if a := carry(t.Context(), c, by, "https://"+listener.Addr().String()); a.Status != http.StatusOK {
				t.Errorf("request %d: answer %v", i, a)
			}
		})
	}
	asking.Wait()
	c.Close()
	_ = listener.Close()
	serving.Wait()
	for i := range requests {
		if n := l.begun[fmt.Sprint(i)]; n != 1 {
			t.Errorf("request %d was processed %d times", i, n)
		}
	}
}
