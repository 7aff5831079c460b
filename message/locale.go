package message

import "strings"

// foldLocale makes locales that differ in case, or in "_" for "-", the same.
func foldLocale(tag string) string { return string(appendFolded(nil, tag)) }

func appendFolded(b []byte, tag string) []byte {
	for i := range len(tag) {
		switch c := tag[i]; {
		case c == '_':
			b = append(b, '-')
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return b
}

// nearest finds the content for a locale by cutting its subtags from the end (RFC 4647 section 3.4), without allocating.
func (c *Compiled) nearest(locale string) content {
	if len(c.localized) == 0 || locale == "" {
		return c.content
	}
	var stack [64]byte
	folded := appendFolded(stack[:0], locale)
	for len(folded) > 0 {
		if l, ok := c.localized[string(folded)]; ok {
			return l
		}
		folded = folded[:max(0, strings.LastIndexByte(string(folded), '-'))]
	}
	return c.content
}
