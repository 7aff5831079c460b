package wire

import (
	"cmp"
	"slices"

	"golang.org/x/net/http2"
)

// What the peer says about the connection and its streams, beside the responses. All of it is called by the reader, with the
// connection's mu held.

// settings takes the peer's SETTINGS, at any time (RFC 9113 section 6.5).
func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.block.resize(s.Val)
		case http2.SettingEnablePush:
			if s.Val != 0 { // a server has no say in it; RFC 9113 section 6.5.2
				return http2.ConnectionError(http2.ErrCodeProtocol)
			}
		case http2.SettingMaxConcurrentStreams:
			c.limit = s.Val
		case http2.SettingInitialWindowSize:
			return c.firstWindow(int64(s.Val))
		}
		// MAX_FRAME_SIZE is never less than our largest. MAX_HEADER_LIST_SIZE is advice; who goes over it gets a 431.
		return nil
	})
	if err != nil {
		return err
	}
	_ = c.frames.WriteSettingsAck()
	c.replies++
	if !c.ready {
		c.ready = true
		_ = c.raw.SetReadDeadline(noDeadline)
		c.publish()
		c.client.joined(c)
	}
	return nil
}

// firstWindow changes what streams may send by the difference, which can take their windows below 0 (RFC 9113 section 6.9.2).
func (c *conn) firstWindow(n int64) error {
	delta := n - c.first
	c.first = n
	var err error
	c.streams.all(func(s *stream) {
		if s.window += delta; s.window > maxWindow {
			err = http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	})
	c.nudgePartial()
	return err
}

// windowUpdate lets us send more (RFC 9113 section 6.9.1).
func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.nudgePartial()
		return nil
	}
	if c.streams.idle(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	s := c.streams.get(f.StreamID)
	if s == nil || s.state != open {
		return nil // it crossed the stream's end
	}
	if s.window += int64(f.Increment); s.window > maxWindow {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeFlowControl}
	}
	c.nudgePartial()
	return nil
}

// nudgePartial wakes the writer if a body may go on.
func (c *conn) nudgePartial() {
	if len(c.partial) > 0 {
		c.nudge()
	}
}

// pinged answers a question, or takes the answer to ours.
func (c *conn) pinged(f *http2.PingFrame) {
	if f.IsAck() {
		c.ping.pong(f.Data, c.frames)
		return
	}
	_ = c.frames.WritePing(true, f.Data)
	c.replies++
}

// maxDebug is how much of a GOAWAY's debug data is kept.
const maxDebug = 256

// goneAway takes a GOAWAY (RFC 9113 section 6.8). Streams above the last one were not processed: they go out again on
// another connection. Those below may still be answered here. A server that leaves in good order says it twice, first with
// the highest last stream there is: each is taken at its word. One that raises it again finds nothing to raise.
func (c *conn) goneAway(f *http2.GoAwayFrame) {
	last := f.LastStreamID
	debug := f.DebugData()
	c.goAway = &GoAwayError{Code: f.ErrCode, LastStream: last, Debug: string(debug[:min(len(debug), maxDebug)])}
	busy := c.streams.live > 0
	// Before the repeats: they are not for this one.
	if first := !c.draining; first {
		c.draining = true
		c.room.Store(0)
		c.client.leave(c, busy)
	}
	var above []*stream
	c.streams.all(func(s *stream) {
		if s.id > last {
			above = append(above, s)
		}
	})
	slices.SortFunc(above, func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
	var again []entry
	for _, s := range above {
		e := entry{req: s.req, tries: s.tries + 1}
		if e.tries < maxTries {
			again = append(again, e)
		} else {
			c.reader.results = append(c.reader.results, Result{Request: s.req, Err: c.goAway, via: c})
		}
		c.streams.close(s, localReset)
	}
	c.client.repeat(again)
}

// resetByPeer takes an RST_STREAM (RFC 9113 section 6.4).
func (c *conn) resetByPeer(f *http2.RSTStreamFrame) error {
	if c.streams.idle(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if s := c.streams.get(f.StreamID); s != nil && s.state == open {
		c.lose(s, http2.StreamError{StreamID: s.id, Code: f.ErrCode}, peerReset)
	}
	return nil
}

// prove notes that the connection has given an answer.
func (c *conn) prove() {
	if !c.proven.Load() {
		c.proven.Store(true)
		c.client.proved()
	}
}
