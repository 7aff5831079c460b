package payload

import "unicode/utf8"

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
