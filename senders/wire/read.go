package wire

import (
	"bufio"
	"errors"

	"golang.org/x/net/http2"
)

const (
	frameHeader = 9
	// maxBody is how much of an answer's body is kept, and maxRead how much of it is read before the stream is reset.
	maxBody = 4 << 10
	maxRead = 1 << 20
	// maxReplies bounds what the peer makes us write (acknowledgements, resets) before the writer has got rid of it.
	maxReplies = 10000
	// maxHeld is for how many frames the reader keeps the connection's lock at most.
	maxHeld = 64
)

// reader is the part of a connection that only its reading goroutine touches.
type reader struct {
	c      *conn
	in     *bufio.Reader
	frames *http2.Framer // reads from in
	fields fields

	// held is for how many frames the connection's lock has been held.
	held int
	// part is a header block of which more is to come, for stream partID; partEnd: its HEADERS had END_STREAM.
	part    []byte
	partEnd bool
	// credit is what the peer may still send us on the connection.
	credit int

	results []Result
	spare   []*answer
}

func (r *reader) init(c *conn) {
	r.c = c
	r.in = bufio.NewReaderSize(c.net, readSize)
	r.frames = http2.NewFramer(nil, r.in)
	r.frames.SetMaxReadFrameSize(maxFrame)
	r.fields.init()
	r.credit = connWindow
	c.raw.idle = r.handOver
}

// run reads until the connection fails, and returns why. Results are handed over when no more is here to read.
func (r *reader) run() error {
	for first := true; ; first = false {
		head, err := r.next()
		r.hold()
		switch {
		case err != nil:
		case first && (head.Type != http2.FrameSettings || head.Flags.Has(http2.FlagSettingsAck)):
			err = http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 3.4
		default:
			err = r.frame(head)
		}
		if err = r.settle(err); err != nil {
			r.pause()
			return err
		}
	}
}

// next reads a frame's header, and sees to it that the whole frame is in the buffer.
func (r *reader) next() (http2.FrameHeader, error) {
	if err := r.need(frameHeader); err != nil {
		return http2.FrameHeader{}, err
	}
	head, err := r.frames.ReadFrameHeader()
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return head, http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if err == nil {
		err = r.need(int(head.Length))
	}
	return head, err
}

// need waits until n bytes are in the buffer. It waits without the lock and, since raw says when it does, with no result in hand.
func (r *reader) need(n int) error {
	for r.in.Buffered() < n {
		r.pause()
		if _, err := r.in.Peek(r.in.Buffered() + 1); err != nil {
			return err
		}
	}
	return nil
}

// hold takes the connection's lock, or keeps it for one frame more.
func (r *reader) hold() {
	if r.held >= maxHeld {
		r.pause()
	}
	if r.held == 0 {
		r.c.mu.Lock()
		r.c.ping.heard = true
	}
	r.held++
}

// pause gives the lock back, and has the writer do what the frames asked for.
func (r *reader) pause() {
	if r.held == 0 {
		return
	}
	r.held = 0
	c := r.c
	if c.draining && c.streams.live == 0 {
		c.end(errDone, http2.ErrCodeNo)
	}
	if c.publish() || len(c.out) > 0 {
		c.nudge()
	}
	c.mu.Unlock()
}

// settle turns an error of a stream into a reset, and passes on one of the connection.
func (r *reader) settle(err error) error {
	if err != nil {
		var broken http2.StreamError
		if !errors.As(err, &broken) {
			return err
		}
		r.refuse(broken)
	}
	if r.c.replies > maxReplies {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// refuse ends a stream on which the peer broke the protocol (RFC 9113 section 5.4.2).
func (r *reader) refuse(e http2.StreamError) {
	s := r.c.streams.get(e.StreamID)
	live := s != nil && s.state == open
	r.c.reset(e.StreamID, e.Code, !live)
	if live {
		r.c.lose(s, e, localReset)
	}
}

// frame handles one frame. HEADERS, DATA and CONTINUATION are read in place: the Framer would copy them, and make a frame of
// each on the heap.
func (r *reader) frame(h http2.FrameHeader) error {
	switch h.Type {
	case http2.FrameHeaders, http2.FrameData, http2.FrameContinuation:
		p, err := r.in.Peek(int(h.Length))
		if err != nil {
			return err
		}
		if h.StreamID == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		switch h.Type {
		case http2.FrameHeaders:
			err = r.headers(h, p)
		case http2.FrameData:
			err = r.data(h, p)
		default:
			err = r.continuation(h, p)
		}
		_, _ = r.in.Discard(int(h.Length)) // peeked at
		return err
	case http2.FramePushPromise: // we said that we take none; RFC 9113 section 8.4
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	f, err := r.frames.ReadFrameForHeader(h)
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return r.c.settings(f)
	case *http2.WindowUpdateFrame:
		return r.c.windowUpdate(f)
	case *http2.PingFrame:
		r.c.pinged(f)
	case *http2.GoAwayFrame:
		r.c.goneAway(f)
	case *http2.RSTStreamFrame:
		return r.c.resetByPeer(f)
	}
	return nil // PRIORITY means nothing to a client; unknown frames are ignored (RFC 9113 section 5.5)
}

// unpad takes the padding off a HEADERS or DATA frame (RFC 9113 sections 6.1 and 6.2).
func unpad(h http2.FrameHeader, p []byte) ([]byte, error) {
	if h.Flags.Has(http2.FlagDataPadded) {
		if len(p) == 0 {
			return nil, http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		n := int(p[0])
		if p = p[1:]; n > len(p) {
			return nil, http2.ConnectionError(http2.ErrCodeProtocol)
		}
		p = p[:len(p)-n]
	}
	return p, nil
}

// stray judges a HEADERS or DATA frame on a stream that is not open (RFC 9113 section 5.1).
func (r *reader) stray(id uint32) error {
	if r.c.streams.idle(id) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if s := r.c.streams.get(id); s != nil {
		switch s.state {
		case ended:
			return http2.ConnectionError(http2.ErrCodeStreamClosed)
		case peerReset:
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
		}
	}
	return nil
}

// handOver gives the results to their handlers, and takes their memory back.
func (r *reader) handOver() {
	if len(r.results) == 0 {
		return
	}
	r.c.client.answered(r.results)
	for i := range r.results {
		if a := r.results[i].answer; a != nil {
			r.spare = append(r.spare, a)
		}
	}
	clear(r.results)
	r.results = r.results[:0]
}
