package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The hostile server's tests hold these of h2spec's cases (github.com/summerwind/h2spec), in so far as they apply to a client,
// and to RFC 9113 where it differs from RFC 7540:
//
//	3.5    preface: the server's is SETTINGS                         settings_test.go
//	4.2    frame size, up to 16,384 and over                         stream_test.go
//	4.3    header blocks: undecodable, interrupted                   response_test.go
//	5.1    states: frames on idle, half-closed and closed streams    stream_test.go
//	5.1.1  identifiers: even, unused; running out of them            stream_test.go
//	5.1.2  concurrency: up, down, zero                               settings_test.go
//	5.4    errors of the connection and of a stream                  all
//	5.5    unknown frames, flags and settings                        stream_test.go, settings_test.go
//	6.1    DATA: stream 0, states, padding                           stream_test.go
//	6.2    HEADERS: stream 0, padding, priority                      stream_test.go
//	6.3    PRIORITY: stream 0, size                                  stream_test.go
//	6.4    RST_STREAM: stream 0, idle, size                          stream_test.go
//	6.5    SETTINGS: stream, size, acknowledgement, every value      settings_test.go
//	6.6    PUSH_PROMISE, which is refused                            stream_test.go
//	6.7    PING: answered, stream, size                              life_test.go, stream_test.go
//	6.8    GOAWAY: stream, size, once and twice                      stream_test.go
//	6.9    WINDOW_UPDATE: zero, overflow, idle, negative windows     flow_test.go
//	6.10   CONTINUATION: order, stream, end, floods                  response_test.go
//	7      unknown error codes: as any other                         stream_test.go
//	8.1    responses: interim, fields, pseudo-fields, lengths,
//	       trailers                                                  response_test.go
//	8.2    push                                                      stream_test.go
//	hpack  2.3.3, 4.2, 5.2, 6.1, 6.3                                 response_test.go
//
// The rest of h2spec is about requests, which only a server sees (8.1.2.2 to 8.1.2.6 for requests, 5.3.1).

// farm is a host whose connections the test plays by hand, within a synctest bubble: time is the bubble's, and when the
// test ends, so must every goroutine of the client.
type farm struct {
	t      *testing.T
	client *Client
	sink   *sink
	config *tls.Config
	// refuse makes dials fail.
	refuse error
	// mute lets connections shake hands and then say nothing.
	mute bool
	// wrap changes the client's end of the next connections.
	wrap func(net.Conn) net.Conn

	mu    sync.Mutex
	peers []*peer
	dials []time.Time
	rest  sync.WaitGroup
}

// play runs a test against a farm.
func play(t *testing.T, o Options, script func(t *testing.T, f *farm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{t: t, sink: newSink(), config: serverTLS("h2")}
		o.Addr, o.Dial, o.MaxConns = "127.0.0.1", f.dial, max(1, o.MaxConns)
		if o.TLS == nil {
			o.TLS = clientTLS()
		}
		f.client = New(o)
		script(t, f)
		f.client.Close()
		f.rest.Wait()
	})
}

func (f *farm) dial(context.Context, string, string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials = append(f.dials, time.Now())
	if f.refuse != nil {
		return nil, f.refuse
	}
	ours, theirs := net.Pipe()
	p := &peer{t: f.t, raw: ours, conn: tls.Server(ours, f.config), up: make(chan struct{})}
	f.peers = append(f.peers, p)
	f.rest.Go(func() { p.serve(!f.mute) })
	if f.wrap != nil {
		return f.wrap(theirs), nil
	}
	return theirs, nil
}

// frame is one that the client sent.
type frame struct {
	http2.FrameHeader
	payload []byte
	fields  []hpack.HeaderField
}

func (f frame) get(name string) string {
	for _, h := range f.fields {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// peer is the host's end of one connection. It notes all that the client sends, and sends what the test has it send.
type peer struct {
	t    *testing.T
	raw  net.Conn
	conn *tls.Conn
	out  *http2.Framer
	up   chan struct{}

	mu     sync.Mutex
	frames []frame
	deaf   chan struct{} // closed or nil: reads
	closed bool
}

// serve says SETTINGS, if it is to, and reads until the connection ends.
func (p *peer) serve(settings bool) {
	defer func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = p.raw.Close()
	}()
	p.out = http2.NewFramer(p.conn, nil)
	p.out.AllowIllegalWrites = true
	if p.conn.Handshake() != nil {
		close(p.up)
		return
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.conn, preface); err != nil || string(preface) != http2.ClientPreface {
		close(p.up)
		return
	}
	if settings {
		go func() { // the client may be writing, and a pipe holds nothing
			_ = p.out.WriteSettings()
			close(p.up)
		}()
	} else {
		close(p.up)
	}
	in := http2.NewFramer(nil, p.conn)
	in.AllowIllegalReads = true
	dec := hpack.NewDecoder(4096, nil)
	var block []byte
	for {
		p.mu.Lock()
		deaf := p.deaf
		p.mu.Unlock()
		if deaf != nil {
			<-deaf
		}
		h, err := in.ReadFrameHeader()
		if err != nil {
			return
		}
		f := frame{FrameHeader: h, payload: make([]byte, h.Length)}
		if _, err := io.ReadFull(p.conn, f.payload); err != nil {
			return
		}
		if h.Type == http2.FrameHeaders || h.Type == http2.FrameContinuation {
			if block = append(block, f.payload...); h.Flags.Has(http2.FlagHeadersEndHeaders) {
				if f.fields, err = dec.DecodeFull(block); err != nil {
					p.t.Errorf("the client's header block: %v", err)
				}
				block = block[:0]
			}
		}
		p.mu.Lock()
		p.frames = append(p.frames, f)
		p.mu.Unlock()
	}
}

// sent are the frames of a type that came, on a stream unless id is 0.
func (p *peer) sent(kind http2.FrameType, id uint32) []frame {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []frame
	for _, f := range p.frames {
		if f.Type == kind && (id == 0 || f.StreamID == id) {
			found = append(found, f)
		}
	}
	return found
}

// body is what came on a stream.
func (p *peer) body(id uint32) (data string, end bool) {
	for _, f := range p.sent(http2.FrameData, id) {
		data, end = data+string(f.payload), f.Flags.Has(http2.FlagDataEndStream)
	}
	return data, end
}

// code is the error code of the client's last RST_STREAM or GOAWAY.
func (p *peer) code(kind http2.FrameType, id uint32) string {
	frames := p.sent(kind, id)
	if len(frames) == 0 {
		return "none"
	}
	b := frames[len(frames)-1].payload[:]
	if kind == http2.FrameGoAway {
		b = b[4:]
	}
	return http2.ErrCode(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])).String()
}

func (p *peer) over() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// deafen stops the peer's reading until the function that it returns is called.
func (p *peer) deafen() (hear func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deaf := make(chan struct{})
	p.deaf = deaf
	return func() {
		p.mu.Lock()
		p.deaf = nil
		p.mu.Unlock()
		close(deaf)
	}
}

// headers sends a response's, or trailers: pairs of names and values, encoded without the dynamic table.
func (p *peer) headers(id uint32, end bool, pairs ...string) {
	synctest.Wait() // for the request
	_ = p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literals(pairs...), EndHeaders: true, EndStream: end})
}

func (p *peer) answer(id uint32, status string) { p.headers(id, true, ":status", status) }

func literals(pairs ...string) []byte {
	var block []byte
	for i := 0; i < len(pairs); i += 2 {
		block = appendString(append(block, 0), pairs[i])
		block = appendString(block, pairs[i+1])
	}
	return block
}

// peer is the n-th connection, from 0, once it is up.
func (f *farm) peer(n int) *peer {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	if len(f.peers) <= n {
		f.mu.Unlock()
		f.t.Fatalf("%d connections were opened: no number %d", len(f.peers), n)
	}
	p := f.peers[n]
	f.mu.Unlock()
	<-p.up
	synctest.Wait()
	return p
}

func (f *farm) conns() int {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.peers)
}

// send sends n requests with a body of the given size, and paths from /0 on.
func (f *farm) send(n, size int) []*Request {
	batch := make([]*Request, n)
	for i := range batch {
		batch[i] = &Request{
			Path: fmt.Sprintf("/%d", i), Handler: f.sink, Body: bytes.Repeat([]byte("b"), size),
			Fields: []Field{{Name: "shared", Value: "s", Kind: Shared}, {Name: "own", Value: fmt.Sprint(i)}, {Name: "hidden", Value: "h", Kind: Secret}},
		}
	}
	f.client.Send(batch)
	return batch
}

// ends are the results so far, as "status or error".
func (f *farm) ends() string {
	synctest.Wait()
	f.sink.mu.Lock()
	defer f.sink.mu.Unlock()
	var words []string
	for _, g := range f.sink.got {
		words = append(words, g.String())
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), "; ")
}

func (f *farm) count() int {
	synctest.Wait()
	f.sink.mu.Lock()
	defer f.sink.mu.Unlock()
	return len(f.sink.got)
}

func (g got) String() string {
	if g.Err == nil {
		return fmt.Sprint(g.Status)
	}
	sent := "not sent"
	if g.Sent {
		sent = "sent"
	}
	return fmt.Sprintf("%s: %v", sent, g.Err)
}

// check compares, and says what it was about.
func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
