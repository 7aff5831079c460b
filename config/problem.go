package config

import (
	"fmt"
	"strings"
)

// Problem is one fault of a configuration.
type Problem struct {
	// File and Line are where the key stands. Line is 0, and File empty, for what is missing or comes from a variable.
	File string
	Line int
	// Path is the key ("apps.demo.apns.key_id"), or the variable's name.
	Path string
	// Text says what is wrong and what to do. It never holds a secret.
	Text string
}

func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Text
}

// Problems is every fault found. It implements error, one fault a line.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

func (p *Problems) add(path, format string, args ...any) {
	*p = append(*p, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}
