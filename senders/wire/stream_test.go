package wire

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// RFC 9113 section 6.8: what is above the last stream goes out again at once, on another connection; what is below is answered
// on the old one, which is closed then.
func TestGoAway(t *testing.T) {
	play(t, Options{MaxConns: 1}, func(t *testing.T, f *farm) {
		f.send(6, 100)
		p := f.peer(0)
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 6)
		_ = p.out.WriteGoAway(5, http2.ErrCodeNo, nil)
		q := f.peer(1)
		again := q.sent(http2.FrameHeaders, 0)
		if len(again) != 3 || again[0].get(":path") != "/3" || again[2].get(":path") != "/5" {
			t.Fatalf("sent again: %v", again)
		}
		f.send(1, 1)
		check(t, "streams on the old one", len(p.sent(http2.FrameHeaders, 0)), 6)
		for _, id := range []uint32{1, 3, 5} {
			p.answer(id, "200")
		}
		check(t, "the old one is closed", p.over(), true)
		check(t, "our GOAWAY", p.code(http2.FrameGoAway, 0), "NO_ERROR")
		for _, id := range []uint32{1, 3, 5, 7} {
			q.answer(id, "201")
		}
		check(t, "ends", f.ends(), "200; 201")
		check(t, "count", f.count(), 7)
	})
}

// A server that leaves in good order first says only that it does. RFC 9113 section 6.8.
func TestGoAwayTwice(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(4, 100)
		p := f.peer(0)
		_ = p.out.WriteGoAway(maxStream, http2.ErrCodeNo, nil)
		q := f.peer(1) // at once
		f.send(1, 1)
		check(t, "new ones on the old", len(p.sent(http2.FrameHeaders, 0)), 4)
		check(t, "on the new", len(q.sent(http2.FrameHeaders, 0)), 1)
		_ = p.out.WriteGoAway(3, http2.ErrCodeNo, nil)
		check(t, "on the new", len(q.sent(http2.FrameHeaders, 0)), 3)
		_ = p.out.WriteGoAway(7, http2.ErrCodeNo, nil) // it may not be raised
		p.headers(5, true, ":status", "200")           // nor answered
		check(t, "count", f.count(), 0)
		p.answer(1, "200")
		p.answer(3, "200")
		check(t, "ends", f.ends(), "200")
		check(t, "count", f.count(), 2)
		check(t, "the old one is closed", p.over(), true)
	})
}

// What was in flight when such a connection closes has the GOAWAY for its error.
func TestGoAwayAndClosed(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(2, 100)
		p := f.peer(0)
		_ = p.out.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings /3/device/secret"))
		_ = p.conn.Close()
		check(t, "ends", f.ends(), "sent: the peer closed the connection: GOAWAY ENHANCE_YOUR_CALM, last stream 1")
		check(t, "debug", f.sink.got[0].Err.(*GoAwayError).Debug, "too_many_pings /3/device/secret")
		time.Sleep(time.Second) // it never answered, so the dial had to wait
		q := f.peer(1)
		q.answer(1, "200")
		check(t, "count", f.count(), 2)
	})
}

// A request is put on no more than three connections that all say that they did not begin it.
func TestGoAwayAgainAndAgain(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 100)
		for i := range maxTries {
			check(t, "ends", f.count(), 0)
			_ = f.peer(i).out.WriteGoAway(0, http2.ErrCodeNo, nil)
			f.conns()
			time.Sleep(10 * time.Second)
		}
		check(t, "connections", f.conns(), maxTries+1) // the last is for what comes next
		check(t, "ends", f.ends(), "not sent: the peer closed the connection: GOAWAY NO_ERROR, last stream 0")
	})
}

// A connection that nothing uses is not replaced: the next request does that.
func TestGoAwayWhenIdle(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		p.answer(1, "200")
		_ = p.out.WriteGoAway(1, http2.ErrCodeNo, nil)
		check(t, "closed", p.over(), true)
		check(t, "connections", f.conns(), 1)
		f.send(1, 1)
		f.peer(1).answer(1, "200")
		check(t, "count", f.count(), 2)
	})
}

// RFC 9113 section 5.4.2, 6.4, 8.7.
func TestResetsByThePeer(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(4, 100)
		p := f.peer(0)
		_ = p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		check(t, "refused", f.ends(), "sent: stream error: stream ID 1; REFUSED_STREAM")
		p.headers(3, false, ":status", "200")
		_ = p.out.WriteRSTStream(3, http2.ErrCodeInternal)
		check(t, "a success whose body breaks off", strings.Contains(f.ends(), "200"), true)
		p.headers(5, false, ":status", "400")
		_ = p.out.WriteRSTStream(5, http2.ErrCodeInternal)
		check(t, "a failure whose body breaks off", strings.Contains(f.ends(), "stream ID 5; INTERNAL_ERROR"), true)
		p.answer(7, "200")
		_ = p.out.WriteRSTStream(7, http2.ErrCodeNo) // RFC 9113 section 8.1: after its answer
		f.send(2, 1)
		p.answer(9, "200")
		_ = p.out.WriteRSTStream(11, 0x99)
		check(t, "an unknown code", strings.Contains(f.ends(), "stream ID 11; unknown error code 0x99"), true)
		check(t, "count", f.count(), 6)
		check(t, "connections", f.conns(), 1)
		check(t, "our resets", len(p.sent(http2.FrameRSTStream, 0)), 0)
	})
}

// h2spec 5.1, 5.1.1, 6.1, 6.2, 6.4: frames on streams that are not open.
func TestFramesOnTheWrongStream(t *testing.T) {
	data := func(id uint32) func(p *peer) { return func(p *peer) { _ = p.out.WriteData(id, true, []byte("d")) } }
	headers := func(id uint32) func(p *peer) { return func(p *peer) { p.answer(id, "200") } }
	for name, c := range map[string]struct {
		say    func(p *peer)
		stream string // the code of RST_STREAM on stream 3
		conn   string // and of GOAWAY
	}{
		"HEADERS on 0":                   {headers(0), "none", "PROTOCOL_ERROR"},
		"DATA on 0":                      {data(0), "none", "PROTOCOL_ERROR"},
		"RST_STREAM on 0":                {func(p *peer) { _ = p.out.WriteRSTStream(0, 0) }, "none", "PROTOCOL_ERROR"},
		"HEADERS on an idle one":         {headers(99), "none", "PROTOCOL_ERROR"},
		"DATA on an idle one":            {data(99), "none", "PROTOCOL_ERROR"},
		"RST_STREAM on an idle one":      {func(p *peer) { _ = p.out.WriteRSTStream(99, 0) }, "none", "PROTOCOL_ERROR"},
		"HEADERS on an even one":         {headers(2), "none", "PROTOCOL_ERROR"},
		"DATA on an even one":            {data(2), "none", "PROTOCOL_ERROR"},
		"HEADERS after END_STREAM":       {headers(1), "none", "STREAM_CLOSED"},
		"DATA after END_STREAM":          {data(1), "none", "STREAM_CLOSED"},
		"HEADERS after RST_STREAM":       {headers(3), "STREAM_CLOSED", "none"},
		"DATA after RST_STREAM":          {data(3), "STREAM_CLOSED", "none"},
		"RST_STREAM after RST_STREAM":    {func(p *peer) { _ = p.out.WriteRSTStream(3, 0) }, "none", "none"},
		"WINDOW_UPDATE after END_STREAM": {func(p *peer) { _ = p.out.WriteWindowUpdate(1, 1) }, "none", "none"},
		"PRIORITY on an idle one":        {func(p *peer) { _ = p.out.WritePriority(99, http2.PriorityParam{Weight: 1}) }, "none", "none"},
		"PRIORITY on 0":                  {func(p *peer) { _ = p.out.WritePriority(0, http2.PriorityParam{Weight: 1}) }, "none", "PROTOCOL_ERROR"},
		"PUSH_PROMISE": {func(p *peer) {
			_ = p.out.WritePushPromise(http2.PushPromiseParam{StreamID: 5, PromiseID: 2, EndHeaders: true})
		}, "none", "PROTOCOL_ERROR"},
		"PING on a stream":                   {func(p *peer) { _ = p.out.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }, "none", "PROTOCOL_ERROR"},
		"GOAWAY on a stream":                 {func(p *peer) { _ = p.out.WriteRawFrame(http2.FrameGoAway, 0, 1, make([]byte, 8)) }, "none", "PROTOCOL_ERROR"},
		"CONTINUATION without HEADERS":       {func(p *peer) { _ = p.out.WriteContinuation(5, true, nil) }, "none", "PROTOCOL_ERROR"},
		"an unknown frame":                   {func(p *peer) { _ = p.out.WriteRawFrame(0x42, 0xff, 5, make([]byte, 8)) }, "none", "none"},
		"an unknown frame on an idle one":    {func(p *peer) { _ = p.out.WriteRawFrame(0x42, 0xff, 99, make([]byte, 8)) }, "none", "none"},
		"PING with unknown flags":            {func(p *peer) { _ = p.out.WriteRawFrame(http2.FramePing, 0xfe, 0, make([]byte, 8)) }, "none", "none"},
		"a PING's answer that was not asked": {func(p *peer) { _ = p.out.WritePing(true, [8]byte{7}) }, "none", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(3, 1)
				p := f.peer(0)
				p.answer(1, "200")
				_ = p.out.WriteRSTStream(3, http2.ErrCodeCancel)
				f.count()
				c.say(p)
				check(t, "RST_STREAM", p.code(http2.FrameRSTStream, 3), c.stream)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), c.conn)
				if c.conn == "none" {
					p.answer(5, "200")
				}
				check(t, "count", f.count(), 3)
			})
		})
	}
}

// h2spec 4.2, 6.x: frames of the wrong size, and padding that is more than there is.
func TestFramesOfTheWrongSize(t *testing.T) {
	raw := func(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) func(p *peer) {
		return func(p *peer) { _ = p.out.WriteRawFrame(kind, flags, id, payload) }
	}
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"DATA over 16384":             {raw(http2.FrameData, 0, 1, make([]byte, maxFrame+1)...), "FRAME_SIZE_ERROR"},
		"HEADERS over 16384":          {raw(http2.FrameHeaders, 4, 1, make([]byte, maxFrame+1)...), "FRAME_SIZE_ERROR"},
		"PING of 7":                   {raw(http2.FramePing, 0, 0, make([]byte, 7)...), "FRAME_SIZE_ERROR"},
		"RST_STREAM of 3":             {raw(http2.FrameRSTStream, 0, 1, make([]byte, 3)...), "FRAME_SIZE_ERROR"},
		"PRIORITY of 4":               {raw(http2.FramePriority, 0, 1, make([]byte, 4)...), "FRAME_SIZE_ERROR"},
		"GOAWAY of 7":                 {raw(http2.FrameGoAway, 0, 0, make([]byte, 7)...), "FRAME_SIZE_ERROR"},
		"HEADERS without its padding": {raw(http2.FrameHeaders, 0x8|0x4, 1), "FRAME_SIZE_ERROR"},
		"HEADERS without priority":    {raw(http2.FrameHeaders, 0x20|0x4, 1, 0, 0), "FRAME_SIZE_ERROR"},
		"HEADERS all padding":         {raw(http2.FrameHeaders, 0x8|0x4, 1, 3, 0, 0), "PROTOCOL_ERROR"},
		"DATA without its padding":    {raw(http2.FrameData, 0x8, 1), "FRAME_SIZE_ERROR"},
		"DATA all padding":            {raw(http2.FrameData, 0x8, 1, 3, 0, 0), "PROTOCOL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(1, 1)
				p := f.peer(0)
				c.say(p)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), c.want)
				check(t, "end", f.ends(), "sent: connection error: "+c.want)
				check(t, "closed", p.over(), true)
			})
		})
	}
}

// Padding and priority in a frame that is right are passed over.
func TestPadding(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		_ = p.out.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: literals(":status", "400"), EndHeaders: true, PadLength: 9,
			Priority: http2.PriorityParam{StreamDep: 3, Weight: 7},
		})
		_ = p.out.WriteDataPadded(1, true, []byte("why"), make([]byte, 200))
		check(t, "end", f.ends(), "400")
		check(t, "body", f.sink.got[0].body, "why")
	})
}

// RFC 9113 section 5.1.1: a connection whose ids are used up is replaced.
func TestStreamIDsAreUsedUp(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.client.firstStream = maxStream - 4
		f.send(5, 1)
		p, q := f.peer(0), f.peer(1)
		check(t, "on the first", len(p.sent(http2.FrameHeaders, 0)), 3)
		check(t, "on the second", len(q.sent(http2.FrameHeaders, 0)), 2)
		for id := uint32(maxStream - 4); id <= maxStream; id += 2 {
			p.answer(id, "200")
		}
		check(t, "the first is closed", p.over(), true)
		q.answer(maxStream-4, "200")
		q.answer(maxStream-2, "200")
		check(t, "count", f.count(), 5)
		check(t, "ends", f.ends(), "200")
	})
}

// A slow stream keeps its slot while ids go round the table: others pass over it.
func TestASlowStreamKeepsItsSlot(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		for range 300 {
			f.send(1, 1)
			sent := p.sent(http2.FrameHeaders, 0)
			p.answer(sent[len(sent)-1].StreamID, "200")
		}
		check(t, "count", f.count(), 300)
		p.answer(1, "404")
		check(t, "ends", f.ends(), "200; 404")
		seen := map[uint32]bool{}
		for _, h := range p.sent(http2.FrameHeaders, 0) {
			if seen[h.StreamID] || h.StreamID != 1 && h.StreamID%128 == 1 {
				t.Errorf("stream %d was used", h.StreamID)
			}
			seen[h.StreamID] = true
		}
	})
}
