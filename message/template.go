package message

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Template is a parsed text: literals and variables in turn. None of them is an empty literal.
type Template []Segment

// Segment is a literal when Name is empty.
type Segment struct {
	// Literal is the text, or what stands in for a variable that is missing or empty.
	Literal string
	Name    string
}

// parse reads the syntax in the package's documentation. It knows nothing of which variables exist.
func parse(text string) (Template, error) {
	var t Template
	for {
		before, rest, open := strings.Cut(text, "{{")
		if before != "" {
			t = append(t, Segment{Literal: before})
		}
		if !open {
			return t, nil
		}
		s, after, err := parseExpression(rest)
		if err != nil {
			return nil, err
		}
		if s.Name != "" || s.Literal != "" {
			t = append(t, s)
		}
		text = after
	}
}

// parseExpression reads what follows "{{" to its "}}", and returns the text after it.
func parseExpression(in string) (s Segment, after string, err error) {
	rest := skipSpace(in)
	if s.Literal, after, err = parseString(rest); err != nil {
		return s, "", err
	}
	if after != rest {
		return closed(s, in, after)
	}
	s.Name, rest = cutName(rest)
	if s.Name == "" {
		return s, "", fmt.Errorf(`%s: expected a variable's name or a quoted text (write {{ "{{" }} for a literal {{)`, excerpt(in))
	}
	rest = skipSpace(rest)
	if def, piped := strings.CutPrefix(rest, "|"); piped {
		def = skipSpace(def)
		if s.Literal, rest, err = parseString(def); err != nil {
			return s, "", err
		}
		if rest == def {
			return s, "", fmt.Errorf(`%s: expected a default in quotes after "|"`, excerpt(in))
		}
	}
	return closed(s, in, rest)
}

func closed(s Segment, in, rest string) (Segment, string, error) {
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
func (t Template) render(vars map[string]string) string {
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

func (s *Segment) value(vars map[string]string) string {
	if s.Name == "" {
		return s.Literal
	}
	if v := vars[s.Name]; v != "" {
		return v
	}
	return s.Literal
}

// empty says that the text renders as nothing.
func (t Template) empty(vars map[string]string) bool {
	for i := range t {
		if t[i].value(vars) != "" {
			return false
		}
	}
	return true
}

// begins says that the text renders to one that begins so.
func (t Template) begins(vars map[string]string, prefix string) bool {
	for i := range t {
		v := t[i].value(vars)
		if len(v) >= len(prefix) {
			return strings.HasPrefix(v, prefix)
		}
		if !strings.HasPrefix(prefix, v) {
			return false
		}
		prefix = prefix[len(v):]
	}
	return prefix == ""
}

// fixed is how many bytes the text begins with whatever the variables are, and whether that is all of it.
func (t Template) fixed() (n int, all bool) {
	for i := range t {
		if t[i].Name != "" {
			return n, false
		}
		n += len(t[i].Literal)
	}
	return n, true
}
