package message

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// template is a parsed text: literals and variables in turn.
type template []segment

// segment is a literal when name is empty.
type segment struct {
	// text is the literal, or what stands in for a variable that is missing or empty.
	text string
	name string
}

// parse reads the syntax in the package's documentation. It knows nothing of which variables exist.
func parse(text string) (template, error) {
	var t template
	for {
		before, rest, open := strings.Cut(text, "{{")
		if before != "" {
			t = append(t, segment{text: before})
		}
		if !open {
			return t, nil
		}
		s, after, err := parseExpression(rest)
		if err != nil {
			return nil, err
		}
		if s.name != "" || s.text != "" {
			t = append(t, s)
		}
		text = after
	}
}

// parseExpression reads what follows "{{" to its "}}", and returns the text after it.
func parseExpression(in string) (s segment, after string, err error) {
	rest := skipSpace(in)
	if s.text, after, err = parseString(rest); err != nil {
		return s, "", err
	}
	if after != rest {
		return closed(s, in, after)
	}
	s.name, rest = cutName(rest)
	if s.name == "" {
		return s, "", fmt.Errorf(`%s: expected a variable's name or a quoted text (write {{ "{{" }} for a literal {{)`, excerpt(in))
	}
	rest = skipSpace(rest)
	if def, piped := strings.CutPrefix(rest, "|"); piped {
		def = skipSpace(def)
		if s.text, rest, err = parseString(def); err != nil {
			return s, "", err
		}
		if rest == def {
			return s, "", fmt.Errorf(`%s: expected a default in quotes after "|"`, excerpt(in))
		}
	}
	return closed(s, in, rest)
}

func closed(s segment, in, rest string) (segment, string, error) {
	after, ok := strings.CutPrefix(skipSpace(rest), "}}")
	if !ok {
		return s, "", fmt.Errorf(`%s: expected "}}" after a name, a quoted text, or a name with | and its default`, excerpt(in))
	}
	return s, after, nil
}

// parseString reads a quoted text. Where there is none it returns all of in as the rest.
func parseString(in string) (text, rest string, err error) {
	if in == "" || in[0] != '"' && in[0] != '\'' {
		return "", in, nil
	}
	var b strings.Builder
	for i := 1; i < len(in); i++ {
		switch {
		case in[i] == in[0]:
			return b.String(), in[i+1:], nil
		case in[i] == '\\' && i+1 < len(in):
			i++
		}
		b.WriteByte(in[i])
	}
	return "", "", errors.New(excerpt(in) + ": the quoted text does not end")
}

// cutName takes the longest name that in begins with.
func cutName(in string) (name, rest string) {
	end := strings.IndexFunc(in, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-:", r)
	})
	if end < 0 {
		end = len(in)
	}
	return in[:end], in[end:]
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t\r\n") }

// excerpt shows where in a text the fault is.
func excerpt(in string) string {
	const most = 24
	cut := []rune("{{" + in)
	if len(cut) > most {
		return string(cut[:most]) + "…"
	}
	return string(cut)
}

// render allocates the text it returns, unless it is a literal or has no more than one segment.
func (t template) render(vars map[string]string) string {
	switch len(t) {
	case 0:
		return ""
	case 1:
		return t[0].value(vars)
	}
	var stack [256]byte
	b := stack[:0]
	for i := range t {
		b = append(b, t[i].value(vars)...)
	}
	return string(b)
}

func (s *segment) value(vars map[string]string) string {
	if s.name == "" {
		return s.text
	}
	if v := vars[s.name]; v != "" {
		return v
	}
	return s.text
}
