package events

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// MaxName bounds ids and names, in bytes: they become parts of Kafka keys and Redis fields.
const MaxName = 128

// NameFault says what is wrong with an event's id or name, or "".
func NameFault(s string) string {
	switch {
	case s == "":
		return "is missing"
	case len(s) > MaxName:
		return fmt.Sprintf("has %d bytes; at most %d are allowed", len(s), MaxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "must be printable UTF-8"
	}
	return ""
}

// IdentityFault says what is wrong with the id of a device or a user, or "".
func IdentityFault(s string) string {
	if fault := NameFault(s); fault != "" {
		return fault
	}
	if strings.ContainsAny(s, "/#") {
		return `must not hold "/" or "#"`
	}
	return ""
}

// Values turns decoded JSON into an event's fields or a device's attributes. prefix names them in what is wrong.
func Values(prefix string, in map[string]any) (map[string]*pb.Value, message.Problems) {
	if len(in) == 0 {
		return nil, nil
	}
	var problems message.Problems
	out := make(map[string]*pb.Value, len(in))
	for name, v := range in {
		if fault := NameFault(name); fault != "" {
			problems = append(problems, message.Problem{Field: prefix, Text: fmt.Sprintf("the name %.40q %s", name, fault)})
			continue
		}
		switch v := v.(type) {
		case string:
			out[name] = &pb.Value{Kind: &pb.Value_Text{Text: v}}
		case float64:
			out[name] = &pb.Value{Kind: &pb.Value_Number{Number: v}}
		case bool:
			out[name] = &pb.Value{Kind: &pb.Value_Flag{Flag: v}}
		default:
			problems = append(problems, message.Problem{Field: prefix + "." + name, Text: "must be a string, a number or a boolean"})
		}
	}
	return out, problems
}
