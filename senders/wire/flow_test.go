package wire

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// RFC 9113 section 6.9.2 and h2spec 6.9.2: a change of the initial window changes those of open streams, below 0 if need be.
func TestTheInitialWindowChangesUnderOpenStreams(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(1, 100)
		p := f.peer(0)
		window := func(n uint32) {
			_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
		}
		length := func() int { data, _ := p.body(1); return len(data) }
		window(0)
		check(t, "HEADERS at 0", len(p.sent(http2.FrameHeaders, 1)), 1)
		check(t, "at 0", length(), 0)
		window(30)
		check(t, "at 30", length(), 30)
		window(10) // the stream's is -20 now
		_ = p.out.WriteWindowUpdate(1, 20)
		check(t, "back at 0", length(), 30)
		_ = p.out.WriteWindowUpdate(1, 5)
		check(t, "at 5 more", length(), 35)
		window(15)
		check(t, "at 5 more again", length(), 40)
		_ = p.out.WriteWindowUpdate(1, 1000)
		_, end := p.body(1)
		check(t, "all", length(), 100)
		check(t, "END_STREAM", end, true)
		p.answer(1, "200")
		check(t, "end", f.ends(), "200")
	})
}

// The connection's window holds all streams; when it opens, they go on in order, and no request is begun that it has no room
// for (RFC 9113 section 6.9.1).
func TestTheConnectionsWindow(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(10, 10000)
		p := f.peer(0)
		check(t, "streams at 65535", len(p.sent(http2.FrameHeaders, 0)), 6)
		_ = p.out.WriteWindowUpdate(0, 4464) // 10,000 with what is left
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 6)
		_ = p.out.WriteWindowUpdate(0, 1)
		check(t, "streams at one byte more", len(p.sent(http2.FrameHeaders, 0)), 7)
		_ = p.out.WriteWindowUpdate(0, 1<<20)
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 10)
		for id := uint32(1); id < 20; id += 2 {
			data, end := p.body(id)
			check(t, "body", len(data), 10000)
			check(t, "END_STREAM", end, true)
		}
	})
}

// A body larger than the connection's window goes in pieces, none larger than a frame may be.
func TestABodyLargerThanTheWindow(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(2, 100000)
		p := f.peer(0)
		data, end := p.body(1)
		check(t, "at first", len(data), 65535)
		check(t, "END_STREAM", end, false)
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 1)
		_ = p.out.WriteWindowUpdate(0, 1<<20)
		_ = p.out.WriteWindowUpdate(1, 1<<20)
		data, end = p.body(1)
		check(t, "then", len(data), 100000)
		check(t, "END_STREAM", end, true)
		_ = p.out.WriteWindowUpdate(3, 1<<20)
		data, _ = p.body(3)
		check(t, "the next", len(data), 100000)
		for _, frame := range p.sent(http2.FrameData, 0) {
			if frame.Length > maxFrame {
				t.Errorf("a frame of %d bytes", frame.Length)
			}
		}
	})
}

// h2spec 6.9, 6.9.1.
func TestWindowUpdatesThatAreWrong(t *testing.T) {
	for name, c := range map[string]struct {
		say    func(p *peer)
		stream string // the code of RST_STREAM
		conn   string // and of GOAWAY
	}{
		"0 on a stream":            {func(p *peer) { _ = p.out.WriteWindowUpdate(1, 0) }, "PROTOCOL_ERROR", "none"},
		"0 on the connection":      {func(p *peer) { _ = p.out.WriteWindowUpdate(0, 0) }, "none", "PROTOCOL_ERROR"},
		"too much on a stream":     {func(p *peer) { _ = p.out.WriteWindowUpdate(1, maxWindow) }, "FLOW_CONTROL_ERROR", "none"},
		"too much on all":          {func(p *peer) { _ = p.out.WriteWindowUpdate(0, maxWindow) }, "none", "FLOW_CONTROL_ERROR"},
		"a stream that is idle":    {func(p *peer) { _ = p.out.WriteWindowUpdate(99, 1) }, "none", "PROTOCOL_ERROR"},
		"a stream of the server's": {func(p *peer) { _ = p.out.WriteWindowUpdate(2, 1) }, "none", "PROTOCOL_ERROR"},
		"a length of 3":            {func(p *peer) { _ = p.out.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 3)) }, "none", "FRAME_SIZE_ERROR"},
		"too much by SETTINGS": {func(p *peer) {
			_ = p.out.WriteWindowUpdate(1, maxWindow-defaultWindow)
			_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: defaultWindow + 2})
		}, "none", "FLOW_CONTROL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(1, 1)
				p := f.peer(0)
				c.say(p)
				check(t, "RST_STREAM", p.code(http2.FrameRSTStream, 1), c.stream)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), c.conn)
			})
		})
	}
}

// What is over 4 KiB of a body is read and credited, and no more than 1 MiB.
func TestABodyIsBounded(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(2, 1)
		p := f.peer(0)
		p.headers(1, false, ":status", "400")
		for range 20 {
			_ = p.out.WriteData(1, false, make([]byte, 10000))
		}
		credit := 0
		for _, frame := range p.sent(http2.FrameWindowUpdate, 1) {
			credit += int(frame.payload[2])<<8 | int(frame.payload[3])
		}
		if credit < 200000-defaultWindow/2-10000 || credit > 200000 {
			t.Errorf("credited with %d of 200000", credit)
		}
		_ = p.out.WriteData(1, true, nil)
		check(t, "end", f.ends(), "400")
		check(t, "body", len(f.sink.got[0].body), maxBody)

		p.headers(3, false, ":status", "413")
		for range maxRead / maxFrame {
			_ = p.out.WriteDataPadded(3, false, make([]byte, maxFrame-11), make([]byte, 10))
		}
		check(t, "before", p.code(http2.FrameRSTStream, 3), "none")
		_ = p.out.WriteData(3, false, make([]byte, 1000))
		check(t, "after", p.code(http2.FrameRSTStream, 3), "CANCEL")
		check(t, "ends", f.ends(), "400; 413")
		_ = p.out.WriteData(3, true, make([]byte, maxFrame)) // under way when the reset came
		check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "none")
	})
}

// The connection's own window opens again for what was sent on any stream, closed ones too (RFC 9113 section 6.9).
func TestTheConnectionIsCredited(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		_ = p.out.WriteRSTStream(1, http2.ErrCodeNo)
		check(t, "credits at first", len(p.sent(http2.FrameWindowUpdate, 0)), 1)
		f.send(1, 1)
		p.headers(3, false, ":status", "400")
		for range maxRead/maxFrame + 1 {
			_ = p.out.WriteData(3, false, make([]byte, maxFrame))
		}
		for range connWindow / 2 / maxFrame {
			_ = p.out.WriteData(3, false, make([]byte, maxFrame))
		}
		var last []byte
		for _, frame := range p.sent(http2.FrameWindowUpdate, 0) {
			if frame.StreamID == 0 {
				last = frame.payload
			}
		}
		if n := int(last[0])<<24 | int(last[1])<<16 | int(last[2])<<8 | int(last[3]); n < connWindow/2 || n > connWindow/2+maxFrame {
			t.Errorf("credited with %d", n)
		}
	})
}

// RFC 9113 section 8.1: a server may answer before it has all of the request.
func TestAnAnswerBeforeTheBodyIsSent(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 100000)
		p := f.peer(0)
		p.answer(1, "413")
		check(t, "end", f.ends(), "413")
		check(t, "RST_STREAM", p.code(http2.FrameRSTStream, 1), "CANCEL")
		before, _ := p.body(1)
		_ = p.out.WriteWindowUpdate(0, 1<<20)
		_ = p.out.WriteWindowUpdate(1, 1<<20)
		after, _ := p.body(1)
		check(t, "DATA after the answer", len(after)-len(before), 0)
		f.send(1, 10)
		p.answer(3, "200")
		check(t, "ends", f.ends(), "200; 413")
	})
}

// A peer that takes nothing off the wire cannot hold requests for ever, even if it goes on talking.
func TestAPeerThatDoesNotRead(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		hear := p.deafen()
		f.send(20, 1000) // the first frame is read by the call under way
		for range 20 {
			time.Sleep(time.Second)
			_ = p.out.WriteWindowUpdate(0, 1)
		}
		check(t, "ends", f.count(), 21)
		if got := f.ends(); !strings.Contains(got, "sent: ") || !strings.Contains(got, "timeout") {
			t.Error(got)
		}
		hear()
	})
}

// RFC 9113 section 10.5: acknowledgements that nobody reads do not pile up.
func TestAFloodOfPings(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		hear := p.deafen()
		_ = p.raw.SetWriteDeadline(time.Now().Add(time.Minute))
		for range maxReplies + 1000 {
			if p.out.WritePing(false, [8]byte{}) != nil {
				break
			}
		}
		check(t, "end", f.ends(), "sent: connection error: ENHANCE_YOUR_CALM")
		hear()
	})
}
