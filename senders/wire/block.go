package wire

import (
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// block encodes requests' header blocks (RFC 7541).
//
// hpack.Encoder keeps the dynamic table and encodes what goes there. That costs two searches in maps for each field, for the
// same few bytes every time: so what it made is kept, and used until an insertion moves the indexes. What differs per request
// is written here, as plain literals: Huffman's code would save a fifth of their bytes for more time than all the rest of the
// request takes.
type block struct {
	enc *hpack.Encoder
	buf []byte
	// moved is set when a field came into the table, or the table changed its size.
	moved bool

	pseudo []hpack.HeaderField
	// prefix are the pseudo-fields encoded, or empty.
	prefix []byte
	sets   [8]sharedSet
	// oldest is the set to give up next.
	oldest int
}

// sharedSet is a request's Shared fields, and how they are encoded.
type sharedSet struct {
	fields []Field
	code   []byte // empty: not known
}

// tableSize bounds the dynamic table, whatever the peer offers. RFC 9113 section 6.5.2 has it by default.
const tableSize = 4096

func newBlock(authority string) *block {
	b := &block{pseudo: []hpack.HeaderField{
		{Name: ":authority", Value: authority},
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
	}}
	b.enc = hpack.NewEncoder(b)
	return b
}

// Write takes one field from the encoder.
func (b *block) Write(p []byte) (int, error) {
	// A literal with incremental indexing, or a table size update (RFC 7541 sections 6.2.1 and 6.3).
	if p[0]&0xc0 == 0x40 || p[0]&0xe0 == 0x20 {
		b.moved = true
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}

// resize follows the peer's SETTINGS_HEADER_TABLE_SIZE. The change is told at the head of the next block (RFC 7541 section
// 4.2), so nothing that is kept may be used before.
func (b *block) resize(n uint32) {
	n = min(n, tableSize)
	b.enc.SetMaxDynamicTableSizeLimit(n)
	b.enc.SetMaxDynamicTableSize(n)
	b.forget()
}

func (b *block) forget() {
	b.prefix = b.prefix[:0]
	for i := range b.sets {
		b.sets[i].code = b.sets[i].code[:0]
	}
}

// encode makes the block of a request, valid until the next. An error is an *InvalidError; the table is as it was then.
func (b *block) encode(r *Request) ([]byte, error) {
	set := b.find(r)
	if bad := invalid(r, set >= 0); bad != "" {
		return nil, &InvalidError{Field: bad}
	}
	b.buf = b.buf[:0]
	if len(b.prefix) > 0 {
		b.buf = append(b.buf, b.prefix...)
	} else {
		b.moved = false
		for _, f := range b.pseudo {
			b.put(f)
		}
		if b.moved {
			b.forget()
		} else {
			b.prefix = append(b.prefix, b.buf...)
		}
	}
	b.buf = append(b.buf, 0x04) // :path, of the static table, not indexed
	b.buf = appendString(b.buf, r.Path)
	b.shared(r, set)
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Kind {
		case Shared:
			continue
		case Secret:
			b.buf = append(b.buf, 0x10)
		case Once:
			b.buf = append(b.buf, 0x00)
		}
		b.buf = appendString(b.buf, f.Name)
		b.buf = appendString(b.buf, f.Value)
	}
	var digits [20]byte
	length := strconv.AppendInt(digits[:0], int64(len(r.Body)), 10)
	b.buf = append(b.buf, 0x0f, 28-15, byte(len(length))) // content-length, of the static table, not indexed
	b.buf = append(b.buf, length...)
	return b.buf, nil
}

// invalid names the field that may not be sent, or nothing (RFC 9113 section 8.2.1). Some peers end the connection over one,
// and with it all that others have in flight. The Shared ones may have been checked before.
func invalid(r *Request, sharedChecked bool) string {
	if !validPath(r.Path) {
		return ":path"
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.Kind == Shared && sharedChecked {
			continue
		}
		if !lowerToken(f.Name) {
			return "name"
		}
		if !validValue(f.Value) {
			return f.Name
		}
	}
	return ""
}

func validPath(path string) bool {
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return path != "" && path[0] == '/'
}

func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return v == "" || !blank(v[0]) && !blank(v[len(v)-1])
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// put never fails: the encoder's writer is the block.
func (b *block) put(f hpack.HeaderField) { _ = b.enc.WriteField(f) }

// find is the set that holds a request's Shared fields, or -1.
func (b *block) find(r *Request) int {
	for i := range b.sets {
		if b.sets[i].matches(r.Fields) {
			return i
		}
	}
	return -1
}

// shared appends a request's Shared fields, of which known is the set.
func (b *block) shared(r *Request, known int) {
	if known >= 0 && len(b.sets[known].code) > 0 {
		b.buf = append(b.buf, b.sets[known].code...)
		return
	}
	start := len(b.buf)
	b.moved = false
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Kind == Shared {
			b.put(hpack.HeaderField{Name: f.Name, Value: f.Value})
		}
	}
	if b.moved {
		b.forget()
		return
	}
	if len(b.buf) == start {
		return
	}
	if known < 0 {
		known = b.oldest
		b.oldest = (b.oldest + 1) % len(b.sets)
		s := &b.sets[known]
		s.fields = slices.DeleteFunc(append(s.fields[:0], r.Fields...), func(f Field) bool { return f.Kind != Shared })
	}
	s := &b.sets[known]
	s.code = append(s.code[:0], b.buf[start:]...)
}

// matches says that the Shared ones among fields are the set's.
func (s *sharedSet) matches(fields []Field) bool {
	n := 0
	for i := range fields {
		f := &fields[i]
		if f.Kind != Shared {
			continue
		}
		if n == len(s.fields) || s.fields[n].Value != f.Value || s.fields[n].Name != f.Name {
			return false
		}
		n++
	}
	return n > 0 && n == len(s.fields)
}

// appendString appends a string literal without Huffman's code (RFC 7541 sections 5.1 and 5.2).
func appendString(dst []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		dst = append(dst, byte(n))
		return append(dst, s...)
	}
	dst = append(dst, 127)
	for n -= 127; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	dst = append(dst, byte(n))
	return append(dst, s...)
}
