package wire

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// RFC 9113 sections 8.1, 8.2 and 8.3, h2spec 8.1: a malformed response is an error of its stream alone.
func TestMalformedResponses(t *testing.T) {
	head := func(pairs ...string) func(p *peer) { return func(p *peer) { p.headers(1, true, pairs...) } }
	begun := func(length string, more func(p *peer)) func(p *peer) {
		return func(p *peer) {
			pairs := []string{":status", "400", "content-length", length}
			if length == "" {
				pairs = pairs[:2]
			}
			p.headers(1, false, pairs...)
			more(p)
		}
	}
	for name, say := range map[string]func(p *peer){
		"no :status":                         head("server", "s"),
		"an empty block":                     head(),
		"a :status of letters":               head(":status", "abc"),
		"a :status of four digits":           head(":status", "2000"),
		"a :status of 099":                   head(":status", "099"),
		"a :status with a sign":              head(":status", "+20"),
		"two :status":                        head(":status", "200", ":status", "200"),
		":status after a regular field":      head("server", "s", ":status", "200"),
		"a request's pseudo-field":           head(":status", "200", ":path", "/"),
		"an unknown pseudo-field":            head(":status", "200", ":test", "t"),
		"upper case":                         head(":status", "200", "Server", "s"),
		"an empty name":                      head(":status", "200", "", "s"),
		"a name with a space":                head(":status", "200", "a b", "s"),
		"a name with a colon":                head(":status", "200", "a:", "s"),
		"a value with a line feed":           head(":status", "200", "a", "b\nc"),
		"a value with NUL":                   head(":status", "200", "a", "b\x00c"),
		"connection":                         head(":status", "200", "connection", "close"),
		"transfer-encoding":                  head(":status", "200", "transfer-encoding", "chunked"),
		"upgrade":                            head(":status", "200", "upgrade", "h2c"),
		"more fields than 16 KiB":            head(":status", "200", "a", strings.Repeat("a", 8160), "b", strings.Repeat("b", 8150)),
		"a content-length of letters":        head(":status", "200", "content-length", "x"),
		"a negative content-length":          head(":status", "200", "content-length", "-1"),
		"two content-lengths":                head(":status", "200", "content-length", "0", "content-length", "1"),
		"less DATA than content-length":      begun("4", func(p *peer) { _ = p.out.WriteData(1, true, []byte("abc")) }),
		"more DATA than content-length":      begun("2", func(p *peer) { _ = p.out.WriteData(1, false, []byte("abc")) }),
		"no DATA, with a content-length":     head(":status", "400", "content-length", "4"),
		"DATA before HEADERS":                func(p *peer) { _ = p.out.WriteData(1, true, []byte("abc")) },
		"trailers that do not end":           begun("", func(p *peer) { p.headers(1, false, "a", "b") }),
		"trailers with :status":              begun("", func(p *peer) { p.headers(1, true, ":status", "200") }),
		"trailers in upper case":             begun("", func(p *peer) { p.headers(1, true, "Upper", "u") }),
		"trailers before the content-length": begun("4", func(p *peer) { p.headers(1, true, "a", "b") }),
		"101":                                func(p *peer) { p.headers(1, false, ":status", "101") },
		"100 that ends the stream":           head(":status", "100"),
		"too many 103": func(p *peer) {
			for range maxInterim + 1 {
				p.headers(1, false, ":status", "103")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(2, 1)
				p := f.peer(0)
				say(p)
				check(t, "RST_STREAM", p.code(http2.FrameRSTStream, 1), "PROTOCOL_ERROR")
				if got := f.ends(); !strings.HasPrefix(got, "sent: stream error: stream ID 1; PROTOCOL_ERROR; the response has ") {
					t.Error(got)
				}
				p.answer(3, "200")
				check(t, "count", f.count(), 2)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "none")
			})
		})
	}
}

// RFC 9113 section 8.1: interim responses come before the final one, and trailers after the body.
func TestInterimResponsesAndTrailers(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		p.headers(1, false, ":status", "100")
		p.headers(1, false, ":status", "103", "link", "l")
		check(t, "before the final one", f.count(), 0)
		p.headers(1, false, ":status", "429", "retry-after", "7", "content-length", "4")
		_ = p.out.WriteData(1, false, []byte("slow"))
		p.headers(1, true, "checksum", "c")
		check(t, "end", f.ends(), "429")
		g := f.sink.got[0]
		check(t, "body", g.body, "slow")
		check(t, "retry-after", g.Header.Get("retry-after"), "7")
		check(t, "an interim response's field", g.Header.Get("link"), "")
		check(t, "a trailer", g.Header.Get("checksum"), "")
	})
}

// RFC 9110 sections 15.3.5 and 15.4.5: these have no content, whatever the length says.
func TestStatusesWithoutContent(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(2, 1)
		p := f.peer(0)
		p.headers(1, true, ":status", "204", "content-length", "10")
		p.headers(3, true, ":status", "304", "content-length", "10")
		check(t, "ends", f.ends(), "204; 304")
	})
}

// RFC 9113 sections 4.3 and 6.10.
func TestContinuation(t *testing.T) {
	block := literals(":status", "200", "one", "1", "two", "2")
	open := func(p *peer) {
		_ = p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5], EndStream: true})
	}
	t.Run("in pieces", func(t *testing.T) {
		play(t, Options{}, func(t *testing.T, f *farm) {
			f.send(1, 1)
			p := f.peer(0)
			open(p)
			_ = p.out.WriteContinuation(1, false, block[5:12])
			_ = p.out.WriteContinuation(1, false, nil)
			_ = p.out.WriteContinuation(1, true, block[12:])
			check(t, "end", f.ends(), "200")
			check(t, "a field", f.sink.got[0].Header.Get("two"), "2")
		})
	})
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"another frame between":  {func(p *peer) { open(p); _ = p.out.WritePing(false, [8]byte{}) }, "PROTOCOL_ERROR"},
		"of another stream":      {func(p *peer) { open(p); _ = p.out.WriteContinuation(3, true, nil) }, "PROTOCOL_ERROR"},
		"an unknown one between": {func(p *peer) { open(p); _ = p.out.WriteRawFrame(0x42, 0, 0, nil) }, "PROTOCOL_ERROR"},
		"after the end":          {func(p *peer) { p.answer(1, "200"); _ = p.out.WriteContinuation(1, true, nil) }, "PROTOCOL_ERROR"},
		"without end": {func(p *peer) {
			open(p)
			for range 2 {
				_ = p.out.WriteContinuation(1, false, make([]byte, maxList-100))
			}
		}, "ENHANCE_YOUR_CALM"},
		"without end, and empty": {func(p *peer) {
			hear := p.deafen()
			open(p)
			for range maxReplies + 10 {
				if p.out.WriteContinuation(1, false, nil) != nil {
					break
				}
			}
			hear()
		}, "ENHANCE_YOUR_CALM"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(2, 1)
				p := f.peer(0)
				c.say(p)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), c.want)
				check(t, "count", f.count(), 2)
			})
		})
	}
}

// RFC 7541, h2spec's hpack 2.3.3, 4.2, 5.2, 6.1, 6.3: a block that cannot be decoded ends the connection.
func TestBlocksThatCannotBeDecoded(t *testing.T) {
	for name, block := range map[string][]byte{
		"index 0":                          {0x80},
		"an index beyond the tables":       {0x88, 0xbe},
		"a name's index beyond the tables": {0x7f, 0x20, 0x01, 'x'},
		"a string longer than the block":   {0x88, 0x00, 0x7e, 'x'},
		"a table size over 4096":           {0x3f, 0xe2, 0x1f, 0x88},
		"a table size after a field":       append(append([]byte{0x88}, 0x40, 1, 'a', 1, 'b'), 0x3f, 0x01),
		"Huffman padding that is none":     {0x88, 0x00, 0x81, 0x00, 0x81, 0x1e},
		"Huffman EOS":                      {0x88, 0x00, 0x01, 'a', 0x84, 0xff, 0xff, 0xff, 0xff},
		"a truncated integer":              {0x88, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(1, 1)
				p := f.peer(0)
				_ = p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "COMPRESSION_ERROR")
				check(t, "end", f.ends(), "sent: connection error: COMPRESSION_ERROR")
			})
		})
	}
}

// The table follows blocks of streams that are over, and those that are malformed (RFC 9113 section 4.3).
func TestTheTableFollowsEveryBlock(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(4, 1)
		p := f.peer(0)
		indexed := func(id uint32, block ...byte) {
			_ = p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
		}
		p.headers(1, true, "no", "status")           // we reset it,
		indexed(1, 0x88, 0x40, 1, 'a', 1, '1')       // and this was under way
		indexed(3, 0x40, 1, 'b', 1, '2')             // malformed: no :status
		indexed(5, 0x88, 0xbe, 0xbf)                 // b and a
		indexed(7, 0x88, 0x20, 0x40, 1, 'c', 1, '3') // a table size update that is late, when the table holds something
		check(t, "count", f.count(), 4)
		for _, g := range f.sink.got {
			if g.Status == 200 {
				check(t, "a", g.Header.Get("a"), "1")
				check(t, "b", g.Header.Get("b"), "2")
			}
		}
		check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "COMPRESSION_ERROR")
	})
}
