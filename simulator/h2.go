package simulator

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"

	"golang.org/x/net/http2"
)

// tlsListener ends TLS itself, so that what the server reads and writes can be amended: to the server it is HTTP/2 without
// TLS.
type tlsListener struct {
	net.Listener // of *conn
	config       *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	under := c.(*conn)
	return &h2conn{Conn: tls.Server(c, l.config), under: under, skip: len(http2.ClientPreface), plain: !under.one.Load()}, nil
}

// h2conn is a connection above TLS with its frames amended, for what Go's server has no setting for: the code of a reset,
// and that APNs holds a connection to one stream until it has accepted a provider token there. The server knows nothing
// of the latter, so a stream that a client opens all the same is served. A client that speaks HTTP/1.1 is passed through.
//
// One goroutine reads, and one at a time writes.
type h2conn struct {
	net.Conn // a *tls.Conn, and not said to be one
	under    *conn

	head  [frameHead]byte // the last that was read
	ready []byte          // of head, not handed over
	skip  int             // bytes before the next head
	acks  int             // of SETTINGS
	plain bool            // nothing that is read is left out any more

	framed  bool   // it is HTTP/2 that is written
	out     []byte // and not a whole frame yet
	streams uint32 // that the server's SETTINGS allow; 0: not written, or raised since
}

// A frame begins with the length of what follows its head in three bytes, its type and its flags (RFC 9113 section 4.1).
const frameHead = 9

func payloadLength(head []byte) int { return int(head[0])<<16 | int(head[1])<<8 | int(head[2]) }

// Read leaves out the client's word that it has read the second SETTINGS, of which the server does not know.
func (c *h2conn) Read(p []byte) (int, error) {
	for len(c.ready) == 0 {
		if c.plain || c.skip > 0 {
			if !c.plain {
				p = p[:min(len(p), c.skip)]
			}
			n, err := c.Conn.Read(p)
			c.skip -= n
			return n, err
		}
		if _, err := io.ReadFull(c.Conn, c.head[:]); err != nil {
			return 0, err
		}
		c.skip, c.ready = payloadLength(c.head[:]), c.head[:]
		if http2.FrameType(c.head[3]) == http2.FrameSettings && http2.Flags(c.head[4]).Has(http2.FlagSettingsAck) {
			if c.acks++; c.acks == 2 {
				c.plain, c.ready = true, nil
			}
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// Write passes on whole frames, amended.
func (c *h2conn) Write(b []byte) (int, error) {
	if !c.framed { // the handshake is over by now
		if c.framed = c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol == http2.NextProtoTLS; !c.framed {
			return c.Conn.Write(b)
		}
	}
	if c.streams > 0 && !c.under.one.Load() && len(c.out) == 0 {
		if _, err := c.Conn.Write(settings(c.streams)); err != nil {
			return 0, err
		}
		c.streams = 0
	}
	c.out = append(c.out, b...)
	whole := 0
	for rest := c.out; len(rest) >= frameHead; rest = c.out[whole:] {
		n := frameHead + payloadLength(rest)
		if len(rest) < n {
			break
		}
		c.amend(rest[:n])
		whole += n
	}
	if _, err := c.Conn.Write(c.out[:whole]); err != nil {
		return 0, err
	}
	c.out = append(c.out[:0], c.out[whole:]...)
	return len(b), nil
}

func (c *h2conn) amend(frame []byte) {
	payload := frame[frameHead:]
	switch http2.FrameType(frame[3]) {
	case http2.FrameSettings: // pairs of an id in two bytes and a value in four
		for ; c.under.one.Load() && len(payload) >= 6; payload = payload[6:] {
			if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingMaxConcurrentStreams {
				c.streams = binary.BigEndian.Uint32(payload[2:])
				binary.BigEndian.PutUint32(payload[2:], 1)
			}
		}
	case http2.FrameRSTStream:
		// The server's own when a handler gives up, which is what Reset does.
		code := http2.ErrCode(c.under.code.Load())
		if http2.ErrCode(binary.BigEndian.Uint32(payload)) == http2.ErrCodeInternal && code != 0 {
			binary.BigEndian.PutUint32(payload, uint32(code))
		}
	}
}

// settings is a SETTINGS frame that allows so many streams.
func settings(streams uint32) []byte {
	f := []byte{2: 6, 3: byte(http2.FrameSettings), frameHead - 1: 0}
	f = binary.BigEndian.AppendUint16(f, uint16(http2.SettingMaxConcurrentStreams))
	return binary.BigEndian.AppendUint32(f, streams)
}

// resetCodes are RST_STREAM's, by RFC 9113's names (section 7).
var resetCodes = func() map[string]http2.ErrCode {
	m := map[string]http2.ErrCode{}
	for code := http2.ErrCodeProtocol; code <= http2.ErrCodeHTTP11Required; code++ {
		m[code.String()] = code
	}
	return m
}()
