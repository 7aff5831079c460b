package message

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
