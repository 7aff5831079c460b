package wire

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// RFC 9113 section 6.7.
func TestPingIsAnswered(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		_ = p.out.WritePing(false, [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
		pings := p.sent(http2.FramePing, 0)
		check(t, "answers", len(pings), 1)
		check(t, "acknowledged", pings[0].Flags.Has(http2.FlagPingAck), true)
		check(t, "data", string(pings[0].payload), "\x01\x02\x03\x04\x05\x06\x07\x08")
	})
}

// A connection that was cut without a word is found out 15 seconds after the last word.
func TestASilentConnection(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		time.Sleep(9 * time.Second)
		check(t, "questions after 9 s", len(p.sent(http2.FramePing, 0)), 0)
		time.Sleep(1100 * time.Millisecond)
		asked := p.sent(http2.FramePing, 0)
		check(t, "questions after 10 s", len(asked), 1)
		_ = p.out.WritePing(true, [8]byte(asked[0].payload))
		time.Sleep(14 * time.Second)
		check(t, "questions after 24 s", len(p.sent(http2.FramePing, 0)), 2)
		check(t, "ends", f.count(), 0)
		time.Sleep(1200 * time.Millisecond)
		check(t, "end", f.ends(), "sent: "+ErrSilent.Error())
		check(t, "closed", p.over(), true)
	})
}

// A peer that talks lives, even if it answers no question.
func TestAPeerThatTalksIsAlive(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		for range 20 {
			time.Sleep(4 * time.Second)
			_ = p.out.WriteWindowUpdate(0, 1)
		}
		time.Sleep(11 * time.Second) // a question, and no answer to it ever
		for range 20 {
			time.Sleep(time.Second)
			_ = p.out.WriteWindowUpdate(0, 1)
		}
		check(t, "ends", f.count(), 0)
	})
}

// An idle connection is kept for an hour, and then closed in good order.
func TestAnIdleConnection(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(1, 1)
		p := f.peer(0)
		p.answer(1, "200")
		answered := 0
		for range 59 * 60 {
			time.Sleep(time.Second)
			for _, ping := range p.sent(http2.FramePing, 0)[answered:] {
				_ = p.out.WritePing(true, [8]byte(ping.payload))
				answered++
			}
		}
		check(t, "closed after 59 minutes", p.over(), false)
		if answered < 300 {
			t.Errorf("%d questions", answered)
		}
		for range 2 * 60 {
			time.Sleep(time.Second)
			for _, ping := range p.sent(http2.FramePing, 0)[answered:] {
				_ = p.out.WritePing(true, [8]byte(ping.payload))
				answered++
			}
		}
		check(t, "closed after 61 minutes", p.over(), true)
		check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "NO_ERROR")
		f.send(1, 1)
		f.peer(1).answer(1, "200")
		check(t, "count", f.count(), 2)
	})
}

// Deadlines end what waits, what is in flight and what is being written; the stream is reset, and late frames do no harm.
func TestDeadlines(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		start := time.Now()
		request := func(after time.Duration, size int) {
			f.client.Send([]*Request{{Path: "/", Handler: f.sink, Body: make([]byte, size), Timeout: time.Until(start.Add(after))}})
		}
		request(time.Second, 1)
		p := f.peer(0)
		time.Sleep(time.Second + 2*tick)
		check(t, "one that waits", f.ends(), "not sent: "+os.ErrDeadlineExceeded.Error())
		_ = p.out.WriteSettings()
		request(2*time.Second, 1)
		request(2*time.Second, 100000)
		request(time.Hour, 0)
		check(t, "before", f.count(), 1)
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 3)
		time.Sleep(time.Second)
		check(t, "after", f.count(), 3)
		if got := f.ends(); !strings.Contains(got, "; sent: "+os.ErrDeadlineExceeded.Error()) {
			t.Error(got)
		}
		check(t, "reset", p.code(http2.FrameRSTStream, 1), "CANCEL")
		check(t, "reset", p.code(http2.FrameRSTStream, 3), "CANCEL")
		p.answer(1, "200")
		p.headers(3, false, ":status", "200")
		_ = p.out.WriteData(3, true, []byte("late"))
		_ = p.out.WriteWindowUpdate(3, 100000)
		p.answer(5, "201")
		check(t, "count", f.count(), 4)
		check(t, "ends", strings.HasPrefix(f.ends(), "201; "), true)
		check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "none")
	})
}

// Time in which this process did not run is none in which the peer did not answer: what it said meanwhile is not read yet. So
// nothing ends for it, neither requests nor the connection, and a deadline comes when as much time has passed that it did run.
func TestWhatWasLostIsNoTimeOfThePeers(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.client.Send([]*Request{{Path: "/", Handler: f.sink, Body: []byte("b"), Timeout: time.Second}})
		p := f.peer(0)
		_ = p.out.WriteSettings()
		time.Sleep(4*tick + tick/2) // between two looks of the watch itself
		now := time.Now()
		for range 3 { // the watch comes an hour late, three times
			now = now.Add(time.Hour)
			f.client.look(now)
		}
		check(t, "ended while it stood still", f.count(), 0)
		check(t, "pings", len(p.sent(http2.FramePing, 0)), 0)
		for end := now.Add(time.Second - 10*tick); now.Before(end); {
			now = now.Add(tick)
			f.client.look(now)
		}
		check(t, "ended before its time", f.count(), 0)
		for range 12 {
			now = now.Add(tick)
			f.client.look(now)
		}
		check(t, "ended", f.ends(), "sent: "+os.ErrDeadlineExceeded.Error())
	})
}

// A stream that we reset counts as open until the peer must have read that. Otherwise a peer that answers nothing would be
// given streams and resets without end.
func TestAResetStreamCountsUntilAPong(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.mute = true
		late := func(n int) {
			for range n {
				f.client.Send([]*Request{{Path: "/", Handler: f.sink, Timeout: time.Second}})
			}
		}
		late(3)
		p := f.peer(0)
		_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
		time.Sleep(time.Second + 2*tick)
		check(t, "late", f.count(), 3)
		check(t, "resets", len(p.sent(http2.FrameRSTStream, 0)), 3)
		f.send(3, 1)
		check(t, "streams before the pong", len(p.sent(http2.FrameHeaders, 0)), 3)
		// The first question was asked after the first reset: two more resets wait for a second.
		for range 2 {
			pings := p.sent(http2.FramePing, 0)
			_ = p.out.WritePing(true, [8]byte(pings[len(pings)-1].payload))
		}
		check(t, "streams after", len(p.sent(http2.FrameHeaders, 0)), 6)
		check(t, "questions", len(p.sent(http2.FramePing, 0)), 2)
	})
}

// One stream until the first answer, and no second connection meanwhile: APNs.
func TestOneUntilAnswered(t *testing.T) {
	play(t, Options{OneUntilAnswered: true, MaxConns: 4}, func(t *testing.T, f *farm) {
		f.send(10, 1)
		p := f.peer(0)
		check(t, "streams at first", len(p.sent(http2.FrameHeaders, 0)), 1)
		time.Sleep(time.Second)
		check(t, "connections", f.conns(), 1)
		p.answer(1, "403")
		check(t, "streams then", len(p.sent(http2.FrameHeaders, 0)), 10)
	})
}

// A pool grows while all its connections are full, one at a time, and no further than it may.
func TestThePoolGrowsByNeed(t *testing.T) {
	play(t, Options{MaxConns: 3}, func(t *testing.T, f *farm) {
		f.mute = true
		few := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2}
		f.send(7, 1)
		for i := range 3 {
			check(t, "connections", f.conns(), i+1)
			_ = f.peer(i).out.WriteSettings(few)
		}
		check(t, "connections", f.conns(), 3)
		check(t, "ends", f.count(), 0)
		for i := range 3 {
			check(t, "streams", len(f.peer(i).sent(http2.FrameHeaders, 0)), 2)
		}
		f.peer(1).answer(1, "200")
		check(t, "streams", len(f.peer(1).sent(http2.FrameHeaders, 0)), 3)
	})
}

// Connections are spread over the host's addresses.
func TestAddressesAreSpreadOver(t *testing.T) {
	c := New(Options{Addr: "push.test:2197"})
	order := func() string {
		return strings.Join(c.spreadOver([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, "2197"), " ")
	}
	check(t, "at first", order(), "192.0.2.1:2197 192.0.2.2:2197 [2001:db8::1]:2197")
	c.conns = append(c.conns, &conn{where: "192.0.2.1:2197"})
	check(t, "then", order(), "192.0.2.2:2197 [2001:db8::1]:2197 192.0.2.1:2197")
	c.conns = append(c.conns, &conn{where: "192.0.2.2:2197"}, &conn{where: "192.0.2.2:2197"})
	check(t, "then", order(), "[2001:db8::1]:2197 192.0.2.1:2197 192.0.2.2:2197")
	c.fault("[2001:db8::1]:2197")
	check(t, "when one fails", order(), "192.0.2.1:2197 192.0.2.2:2197 [2001:db8::1]:2197")
	k := &conn{where: "[2001:db8::1]:2197"}
	c.joined(k)
	c.leave(k, false)
	check(t, "when it works again", order(), "[2001:db8::1]:2197 192.0.2.1:2197 192.0.2.2:2197")
}

// When one address does not answer, the next is tried.
func TestTheNextAddress(t *testing.T) {
	var tried []string
	c := New(Options{Addr: "localhost:9", Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
		tried = append(tried, addr)
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}})
	_, _, err := c.dialSpread(t.Context())
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v", err)
	}
	if len(tried) == 0 || !strings.HasSuffix(tried[0], ":9") {
		t.Errorf("tried %q", tried)
	}
}

// A failed dial ends what waits with its error, and the next waits longer and longer: never a storm.
func TestFailedDials(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.refuse = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		start := time.Now()
		f.send(3, 1)
		check(t, "ends", f.ends(), "not sent: dial tcp: connection refused")
		check(t, "count", f.count(), 3)
		for time.Since(start) < time.Minute {
			f.send(1, 1)
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(f.dials); n < 10 || n > 20 {
			t.Errorf("%d dials in a minute", n)
		}
		for i := 2; i < len(f.dials); i++ {
			if gap := f.dials[i].Sub(f.dials[i-1]); gap < backoffFirst || gap > backoffMost*5/4+2*tick {
				t.Errorf("dial %d came after %v", i, gap)
			}
		}
		f.refuse = nil
		f.send(1, 1)
		time.Sleep(10 * time.Second)
		f.peer(0).answer(1, "200")
		check(t, "it works again", strings.HasPrefix(f.ends(), "200; "), true)
	})
}

// A failed dial is nothing to requests that another connection will take.
func TestAFailedDialBesideAConnection(t *testing.T) {
	play(t, Options{MaxConns: 2}, func(t *testing.T, f *farm) {
		f.mute = true
		f.send(1, 1)
		p := f.peer(0)
		f.refuse = errors.New("no route")
		_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		f.send(2, 1)
		for id := uint32(1); id <= 5; id += 2 {
			time.Sleep(time.Second)
			p.answer(id, "200")
		}
		check(t, "ends", f.ends(), "200")
		if len(f.dials) < 2 {
			t.Error("no second dial was tried")
		}
	})
}

// A host that takes connections and drops them unanswered is not dialed in a storm either.
func TestConnectionsThatAreDropped(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		start := time.Now()
		for time.Since(start) < 30*time.Second {
			f.send(1, 1)
			time.Sleep(50 * time.Millisecond)
			f.mu.Lock()
			for _, p := range f.peers {
				_ = p.raw.Close()
			}
			f.mu.Unlock()
		}
		if n := f.conns(); n < 5 || n > 20 {
			t.Errorf("%d connections in 30 seconds", n)
		}
	})
}

// severed fails writes from when it is cut, and reads on.
type severed struct {
	net.Conn
	cut chan struct{}
}

func (s severed) Write(p []byte) (int, error) {
	select {
	case <-s.cut:
		return 0, syscall.EPIPE
	default:
		return s.Conn.Write(p)
	}
}

// When nothing can be written any more, what the peer said before it left is still heard.
func TestWhatThePeerSaidBeforeItLeft(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		cut := make(chan struct{})
		f.wrap = func(nc net.Conn) net.Conn { return severed{nc, cut} }
		f.send(3, 100)
		p := f.peer(0)
		check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 3)
		f.wrap = nil
		close(cut)
		_ = p.out.WritePing(false, [8]byte{}) // has the client write
		check(t, "ends", f.count(), 0)
		p.answer(1, "200")
		_ = p.out.WriteGoAway(3, http2.ErrCodeNo, nil)
		q := f.peer(1)
		_ = p.conn.Close()
		check(t, "repeated", q.sent(http2.FrameHeaders, 1)[0].get(":path"), "/2")
		q.answer(1, "201")
		check(t, "ends", f.ends(), "200; 201; sent: the peer closed the connection: GOAWAY NO_ERROR, last stream 3")
	})
	play(t, Options{}, func(t *testing.T, f *farm) {
		cut := make(chan struct{})
		f.wrap = func(nc net.Conn) net.Conn { return severed{nc, cut} }
		f.send(1, 100)
		f.peer(0)
		close(cut)
		f.send(1, 100)
		check(t, "ends", f.count(), 0)
		time.Sleep(lastWords)
		check(t, "ends", f.ends(), "sent: broken pipe")
	})
}

// No new request on a retired connection; what is in flight ends there.
func TestRetire(t *testing.T) {
	play(t, Options{}, func(t *testing.T, f *farm) {
		f.send(3, 1)
		p := f.peer(0)
		p.answer(1, "403")
		check(t, "count", f.count(), 1)
		for range 3 {
			f.client.Retire(&f.sink.got[0].Result)
		}
		q := f.peer(1) // at once: others are in flight
		f.send(2, 1)
		check(t, "on the old one", len(p.sent(http2.FrameHeaders, 0)), 3)
		check(t, "on the new one", len(q.sent(http2.FrameHeaders, 0)), 2)
		p.answer(3, "200")
		p.answer(5, "200")
		check(t, "the old one is closed", p.over(), true)
		f.client.Retire(&f.sink.got[0].Result)
		q.answer(1, "200")
		q.answer(3, "200")
		check(t, "count", f.count(), 5)
		check(t, "connections", f.conns(), 2)
		f.client.Retire(&Result{})
	})
}

// Close ends all there is, at every stage.
func TestClose(t *testing.T) {
	t.Run("in flight and waiting", func(t *testing.T) {
		play(t, Options{}, func(t *testing.T, f *farm) {
			f.mute = true
			f.send(3, 1)
			p := f.peer(0)
			_ = p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			check(t, "streams", len(p.sent(http2.FrameHeaders, 0)), 1)
			f.client.Close()
			check(t, "ends", f.ends(), "not sent: the client is closed; sent: the client is closed")
			check(t, "GOAWAY", p.code(http2.FrameGoAway, 0), "NO_ERROR")
			f.send(2, 1)
			check(t, "count", f.count(), 5)
			f.client.Close()
		})
	})
	t.Run("while it shakes hands", func(t *testing.T) {
		play(t, Options{}, func(t *testing.T, f *farm) {
			f.mute = true
			f.send(3, 1)
			f.peer(0)
			f.client.Close()
			check(t, "ends", f.ends(), "not sent: the client is closed")
			check(t, "count", f.count(), 3)
		})
	})
	t.Run("with a peer that does not read", func(t *testing.T) {
		play(t, Options{}, func(t *testing.T, f *farm) {
			f.send(1, 1)
			hear := f.peer(0).deafen()
			f.send(20, 1000)
			f.count()
			f.client.Close()
			check(t, "ends", f.ends(), "sent: the client is closed")
			check(t, "count", f.count(), 21)
			hear()
		})
	})
	t.Run("unused", func(*testing.T) { New(Options{Addr: "unused.test"}).Close() })
}
