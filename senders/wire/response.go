package wire

import (
	"errors"
	"strconv"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxInterim is how many 1xx responses may come before the final one.
const maxInterim = 8

// fields decodes header blocks.
type fields struct {
	dec *hpack.Decoder
	// into gets the fields; nil: they are only checked, and the table kept.
	into *answer

	// Of the block at hand:
	size    int
	status  int
	length  int64
	regular bool // a field that is no pseudo-field was seen
	fault   string
}

func (f *fields) init() {
	f.dec = hpack.NewDecoder(tableSize, f.add)
	f.dec.SetMaxStringLength(maxList)
}

// decode reads a whole block. Its error is the connection's: what the table holds is not known any more (RFC 9113 section
// 4.3). A fault of the message is in fault.
func (f *fields) decode(block []byte, into *answer) error {
	f.into, f.size, f.status, f.length, f.regular, f.fault = into, 0, 0, -1, false, ""
	_, err := f.dec.Write(block)
	if err == nil {
		err = f.dec.Close()
	}
	f.into = nil
	if err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	return nil
}

// add checks a field (RFC 9113 sections 8.2 and 8.3).
func (f *fields) add(h hpack.HeaderField) {
	f.size += int(h.Size())
	switch {
	case f.fault != "":
	case f.size > maxList:
		f.fault = "more than 16 KiB of header fields"
	case h.Name != "" && h.Name[0] == ':':
		f.pseudo(h)
	default:
		f.regular = true
		f.check(h)
		if f.fault == "" && f.into != nil {
			f.into.fields = append(f.into.fields, h)
		}
	}
}

func (f *fields) pseudo(h hpack.HeaderField) {
	switch {
	case h.Name != ":status":
		f.fault = "a pseudo-field that no response has"
	case f.regular:
		f.fault = "a pseudo-field after a regular one"
	case f.status != 0:
		f.fault = "two :status"
	default:
		n, err := strconv.ParseUint(h.Value, 10, 16)
		if err != nil || len(h.Value) != 3 || n < 100 {
			f.fault = "a :status that is no status"
		}
		f.status = int(n)
	}
}

func (f *fields) check(h hpack.HeaderField) {
	switch {
	case !lowerToken(h.Name):
		f.fault = "a field name that is none, or not in lower case"
		return
	case !httpguts.ValidHeaderFieldValue(h.Value):
		f.fault = "a field value with control characters"
		return
	}
	switch h.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		f.fault = "a field of the connection" // RFC 9113 section 8.2.2
	case "content-length":
		n, err := strconv.ParseUint(h.Value, 10, 63)
		if err != nil || f.length >= 0 && f.length != int64(n) {
			f.fault = "a content-length that is none"
			return
		}
		f.length = int64(n)
	}
}

// inName are the bytes that a field name may have, which is a token in lower case (RFC 9113 section 8.2.1). Each name of each
// request and response is looked at.
var inName = func() (in [256]bool) {
	for c := range 128 {
		in[c] = httpguts.IsTokenRune(rune(c)) && (c < 'A' || c > 'Z')
	}
	return in
}()

func lowerToken(name string) bool {
	for i := range len(name) {
		if !inName[name[i]] {
			return false
		}
	}
	return name != ""
}

// headers takes a HEADERS frame, and its block if it is whole.
func (r *reader) headers(h http2.FrameHeader, p []byte) error {
	p, err := unpad(h, p)
	if err != nil {
		return err
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		if len(p) < 5 {
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		p = p[5:]
	}
	end := h.Flags.Has(http2.FlagHeadersEndStream)
	if h.Flags.Has(http2.FlagHeadersEndHeaders) {
		return r.block(h.StreamID, p, end)
	}
	r.part, r.partEnd = append(r.part[:0], p...), end
	return nil
}

// continuation takes a CONTINUATION frame; the Framer has seen to the order.
func (r *reader) continuation(h http2.FrameHeader, p []byte) error {
	if len(r.part)+len(p) > maxList {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	r.part = append(r.part, p...)
	if h.Flags.Has(http2.FlagContinuationEndHeaders) {
		return r.block(h.StreamID, r.part, r.partEnd)
	}
	// An empty frame costs the peer nothing, and never ends the block.
	if r.c.replies++; len(p) == 0 && r.c.replies > maxReplies {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// block takes a whole header block: an interim response's, a final one's, or trailers.
func (r *reader) block(id uint32, block []byte, end bool) error {
	s := r.c.streams.get(id)
	live := s != nil && s.state == open
	var into *answer
	if live && s.answer == nil {
		into = r.take()
	}
	if err := r.fields.decode(block, into); err != nil {
		return err
	}
	if !live {
		return r.stray(id) // decoded all the same: the table must follow
	}
	f := &r.fields
	switch {
	case f.fault != "":
	case into == nil: // trailers
		if f.status != 0 {
			f.fault = "a pseudo-field in the trailers"
		} else if !end {
			f.fault = "trailers that do not end the stream"
		}
	case f.status == 0:
		f.fault = "no :status"
	case f.status == 101: // RFC 9113 section 8.6
		f.fault = "101 in HTTP/2"
	case f.status < 200:
		return r.interim(s, into, end)
	}
	if f.fault != "" {
		if into != nil {
			r.spare = append(r.spare, into)
		}
		return malformed(id, f.fault)
	}
	if into != nil {
		into.status, into.length = f.status, f.length
		s.answer = into
		r.c.prove()
	}
	if end {
		return r.end(s)
	}
	return nil
}

// interim passes over a 1xx response.
func (r *reader) interim(s *stream, a *answer, end bool) error {
	r.spare = append(r.spare, a)
	if s.interim++; end || s.interim > maxInterim {
		return malformed(s.id, "a 1xx response that ends the stream, or one too many")
	}
	return nil
}

// data takes a DATA frame: it keeps the start of the body and credits the peer with all of it. What has come is credited when
// half of a window is used, so no peer can be found to be over one (RFC 9113 section 6.9).
func (r *reader) data(h http2.FrameHeader, p []byte) error {
	if r.credit -= len(p); r.credit <= connWindow/2 {
		_ = r.c.frames.WriteWindowUpdate(0, uint32(connWindow-r.credit))
		r.credit = connWindow
	}
	size := len(p)
	p, err := unpad(h, p)
	if err != nil {
		return err
	}
	s := r.c.streams.get(h.StreamID)
	if s == nil || s.state != open {
		return r.stray(h.StreamID)
	}
	s.credit -= size
	a := s.answer
	if a == nil {
		return malformed(s.id, "DATA before the response's HEADERS")
	}
	s.received += int64(len(p))
	a.body = append(a.body, p[:min(len(p), maxBody-len(a.body))]...)
	switch {
	case a.length >= 0 && s.received > a.length:
		return malformed(s.id, "more DATA than content-length says")
	case h.Flags.Has(http2.FlagDataEndStream):
		return r.end(s)
	case s.received > maxRead:
		// What it means is known. The rest is nothing that anybody would read.
		r.c.reset(s.id, http2.ErrCodeCancel, false)
		r.finish(s, localReset)
	case s.credit <= defaultWindow/2:
		_ = r.c.frames.WriteWindowUpdate(s.id, uint32(defaultWindow-s.credit))
		s.credit = defaultWindow
	}
	return nil
}

// end is the peer's END_STREAM.
func (r *reader) end(s *stream) error {
	a := s.answer
	if a.length >= 0 && a.length != s.received && a.status != 204 && a.status != 304 {
		r.c.reset(s.id, http2.ErrCodeProtocol, true)
		r.c.lose(s, malformed(s.id, "less DATA than content-length says"), ended)
		return nil
	}
	if s.unsent > 0 { // answered before it was all said: the rest is not wanted (RFC 9113 section 8.1)
		r.c.reset(s.id, http2.ErrCodeCancel, true)
	}
	r.finish(s, ended)
	return nil
}

// finish makes a result of a stream's answer.
func (r *reader) finish(s *stream, how state) {
	r.results = append(r.results, Result{Request: s.req, Sent: true, via: r.c})
	r.results[len(r.results)-1].fill(s.answer)
	r.c.streams.close(s, how)
}

// take is memory for an answer.
func (r *reader) take() *answer {
	n := len(r.spare)
	if n == 0 {
		return &answer{}
	}
	a := r.spare[n-1]
	r.spare = r.spare[:n-1]
	clear(a.fields)
	a.fields, a.body = a.fields[:0], a.body[:0]
	return a
}

func malformed(id uint32, why string) error {
	return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol, Cause: errors.New("the response has " + why)}
}
