package wire

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// RFC 9113 section 3.4: the client speaks first, but opens no stream before it knows what the peer permits.
func TestNoStreamBeforeThePeersSettings(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(1, 1)
		p := f.peer(0)
		settings := p.sent(http2.FrameSettings, 0)
		check(t, "SETTINGS", len(settings), 1)
		check(t, "ENABLE_PUSH", fmt.Sprint(settings[0].payload[:6]), "[0 2 0 0 0 0]")
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 0)
		_ = p.out.WriteSettings()
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 1)
		check(t, "acknowledgements", len(p.sent(http2.FrameSettings, 0)), 2)
		p.answer(1, "200")
		check(t, "end", f.ends(), "200")
	})
}

// A host that shakes hands and says nothing is a failed dial: nothing was sent.
func TestAHostWithoutSettings(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(1, 1)
		f.peer(0)
		time.Sleep(dialTimeout + time.Second)
		if got := f.ends(); !strings.HasPrefix(got, "not sent: ") || !strings.Contains(got, "timeout") {
			t.Error(got)
		}
	})
}

func TestThePeersFirstFrameIsSettings(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(1, 1)
		p := f.peer(0)
		_ = p.out.WritePing(false, [8]byte{})
		check(t, "end", f.ends(), "not sent: connection error: PROTOCOL_ERROR")
		check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "PROTOCOL_ERROR")
	})
}

// RFC 9113 section 5.1.2: the limit may change while streams are open.
func TestMaxConcurrentStreamsGoesUpAndDown(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(10, 1)
		p := f.peer(0)
		limit := func(n uint32) {
			_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
		}
		opened := func() int { return len(p.sent(http2.FrameHeaders, 0)) }
		limit(2)
		check(t, "at 2", opened(), 2)
		limit(4)
		check(t, "at 4", opened(), 4)
		limit(1)
		p.answer(1, "200")
		p.answer(3, "200")
		p.answer(5, "200")
		check(t, "at 1, three of four answered", opened(), 4)
		p.answer(7, "200")
		check(t, "at 1, all answered", opened(), 5)
		limit(0)
		p.answer(9, "200")
		check(t, "at 0", opened(), 5)
		limit(100)
		check(t, "at 100", opened(), 10)
	})
}

// RFC 9113 section 6.5.2 and h2spec 6.5, 6.5.2, 6.5.3.
func TestSettingsThatAreWrong(t *testing.T) {
	setting := func(id http2.SettingID, v uint32) func(p *peer) {
		return func(p *peer) { _ = p.out.WriteSettings(http2.Setting{ID: id, Val: v}) }
	}
	raw := func(flags http2.Flags, id uint32, size int) func(p *peer) {
		return func(p *peer) { _ = p.out.WriteRawFrame(http2.FrameSettings, flags, id, make([]byte, size)) }
	}
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"ENABLE_PUSH 1 of a server":      {setting(http2.SettingEnablePush, 1), "PROTOCOL_ERROR"},
		"ENABLE_PUSH 2":                  {setting(http2.SettingEnablePush, 2), "PROTOCOL_ERROR"},
		"INITIAL_WINDOW_SIZE over 2^31":  {setting(http2.SettingInitialWindowSize, 1<<31), "FLOW_CONTROL_ERROR"},
		"MAX_FRAME_SIZE under 16384":     {setting(http2.SettingMaxFrameSize, 16383), "PROTOCOL_ERROR"},
		"MAX_FRAME_SIZE over 16777215":   {setting(http2.SettingMaxFrameSize, 1<<24), "PROTOCOL_ERROR"},
		"a stream":                       {raw(0, 1, 0), "PROTOCOL_ERROR"},
		"a length that is no multiple":   {raw(0, 0, 7), "FRAME_SIZE_ERROR"},
		"an acknowledgement with a load": {raw(http2.FlagSettingsAck, 0, 6), "FRAME_SIZE_ERROR"},
		"an unknown setting":             {setting(0x99, 1), "none"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, f *farm) {
				f.send(1, 1)
				p := f.peer(0)
				c.say(p)
				check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), c.want)
				if c.want != "none" {
					check(t, "end", f.ends(), "sent: connection error: "+c.want)
				}
			})
		})
	}
}

// RFC 7541 section 4.2, RFC 9113 section 4.3.1: the change is told at the head of the next block, and the table that the
// peer's decoder has is the one that is used. The farm's decoder refuses anything else.
func TestHeaderTableSizeGoesDownAndUp(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(3, 1)
		p := f.peer(0)
		for _, size := range []uint32{0, 4096, 64, 1 << 20, 1} {
			before := len(p.sent(http2.FrameHeaders, 0))
			_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
			synctest.Wait() // for the client to have read it
			f.send(3, 1)
			blocks := p.sent(http2.FrameHeaders, 0)[before:]
			check(t, "blocks", len(blocks), 3)
			if blocks[0].payload[0]&0xe0 != 0x20 {
				t.Errorf("at %d: the first block begins with %#x, no table size update", size, blocks[0].payload[0])
			}
			if blocks[2].payload[0]&0xe0 == 0x20 {
				t.Errorf("at %d: the update is told again", size)
			}
			for _, b := range blocks {
				check(t, "a shared field", b.get("shared"), "s")
				check(t, "authority", b.get(":authority"), "127.0.0.1")
			}
		}
	})
}

// A request's fields reach the peer as what they are.
func TestFieldsOnTheWire(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(2, 3)
		h := f.peer(0).sent(http2.FrameHeaders, 3)[0]
		var got []string
		for _, field := range h.fields {
			got = append(got, fmt.Sprintf("%s=%s %t", field.Name, field.Value, field.Sensitive))
		}
		check(t, "fields", strings.Join(got, "; "), ":authority=127.0.0.1 false; :method=POST false; :scheme=https false; "+
			":path=/1 false; shared=s false; own=1 false; hidden=h true; content-length=3 false")
	})
}

// A header block larger than a frame goes on in CONTINUATION (RFC 9113 section 4.3).
func TestALargeHeaderBlock(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		large := strings.Repeat("v", 40000)
		f.client.Send([]*Request{{Path: "/", Handler: f.sink, Fields: []Field{{Name: "large", Value: large}}}})
		p := f.peer(0)
		h, more := p.sent(http2.FrameHeaders, 1), p.sent(http2.FrameContinuation, 1)
		if len(h) != 1 || len(more) != 2 {
			t.Fatalf("%d HEADERS and %d CONTINUATION", len(h), len(more))
		}
		check(t, "END_STREAM", h[0].Flags.Has(http2.FlagHeadersEndStream), true)
		check(t, "END_HEADERS", h[0].Flags.Has(http2.FlagHeadersEndHeaders), false)
		check(t, "the value", more[1].get("large") == large, true)
	})
}
