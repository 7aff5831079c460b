package payload

import (
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Writer makes JSON by appending. It is here because an encoder runs once for every delivery, and reflection over
// structs costs ten times as much. Fields are written in the order of the calls; a field that has nothing to say is left
// out. The zero value is ready.
type Writer struct {
	buf []byte
}

// Open begins an object: the whole when key is empty, else a field.
func (w *Writer) Open(key string) {
	if key != "" {
		w.key(key)
	} else if w.buf == nil {
		w.buf = make([]byte, 0, 512) // most payloads, without growing
	}
	w.buf = append(w.buf, '{')
}

// Close ends the object that was opened last.
func (w *Writer) Close() { w.buf = append(w.buf, '}') }

// Bytes is what was written.
func (w *Writer) Bytes() []byte { return w.buf }

// String writes a text, unless it is empty.
func (w *Writer) String(key, value string) {
	if value != "" {
		w.Text(key, value)
	}
}

// Text writes a text, be it empty.
func (w *Writer) Text(key, value string) {
	w.key(key)
	w.buf = AppendString(w.buf, value)
}

// Uint writes a number, be it 0.
func (w *Writer) Uint(key string, value uint64) {
	w.key(key)
	w.buf = strconv.AppendUint(w.buf, value, 10)
}

// Float writes a finite number, unless it is 0.
func (w *Writer) Float(key string, value float64) {
	if value != 0 {
		w.key(key)
		w.buf = strconv.AppendFloat(w.buf, value, 'f', -1, 64)
	}
}

// Flag writes true, or nothing.
func (w *Writer) Flag(key string, value bool) {
	if value {
		w.key(key)
		w.buf = append(w.buf, "true"...)
	}
}

// Texts writes each entry as a field of the open object, in the order of the keys.
func (w *Writer) Texts(values map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		w.Text(key, values[key])
	}
}

// Fields writes the fields of an object that is JSON already, without space around it.
func (w *Writer) Fields(object []byte) {
	fields := object[1 : len(object)-1]
	if len(fields) > 0 && w.buf[len(w.buf)-1] != '{' {
		w.buf = append(w.buf, ',')
	}
	w.buf = append(w.buf, fields...)
}

func (w *Writer) key(key string) {
	if w.buf[len(w.buf)-1] != '{' {
		w.buf = append(w.buf, ',')
	}
	w.buf = AppendString(w.buf, key)
	w.buf = append(w.buf, ':')
}

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string (RFC 8259 section 7) in its quotes.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendEscaped(b, s)
	return append(b, '"')
}

// appendEscaped writes what stands between the quotes. Unlike encoding/json it leaves <, > and & alone, which are harmless
// outside of HTML and would take six bytes each of the 4,096 there are. What is not UTF-8 becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	plain := 0
	for i := 0; i < len(s); {
		if len(s)-i >= 8 && plain8(s[i:i+8]) {
			i += 8
			continue
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == '"' || c == '\\' {
				b = append(b, s[plain:i]...)
				b = appendEscape(b, c)
				plain = i + 1
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[plain:i]...)
			b = append(b, "\ufffd"...)
			plain = i + 1
		}
		i += size
	}
	return append(b, s[plain:]...)
}

// plain8 says that eight bytes need no escape and are ASCII; it may fail to, but only where one of them does or is not. A
// token is some 160 bytes of nothing else, and this looks at them a word at a time: in a byte of x the highest bit is set
// if it is not ASCII, of x-0x20 if it is a control character, and of (x^c)-1 if it is c.
func plain8(s string) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	return (x|(x-ones*' ')|((x^ones*'"')-ones)|((x^ones*'\\')-ones))&high == 0
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, `\n`...)
	case '\t':
		return append(b, `\t`...)
	default:
		return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
	}
}
