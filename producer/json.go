package producer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/belfry/belfry/message"
)

func tooLarge(limit int64) *Problem {
	return problem(http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("The body may have %d bytes. Send less.", limit))
}

// decodeLine reads one NDJSON line strictly: a field that is not known is a fault, for it is a mistake that nobody would
// see otherwise.
func decodeLine(line []byte, v any) message.Problems {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return message.Problems{{Text: "malformed JSON: more follows the object on its line"}}
		}
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		// A line's own op lies beside the device that it embeds, which Go names and JSON does not.
		return message.Problems{{Field: strings.TrimPrefix(wrong.Field, "Device."), Text: fmt.Sprintf("is a JSON %s; must be a %s", wrong.Value, kindName(wrong.Type.Kind().String()))}}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return message.Problems{{Field: strings.Trim(name, `"`), Text: "is not known here"}}
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok {
		// The one time that a line has is an event's.
		return message.Problems{{Field: "at", Text: "must be a time as RFC 3339 writes it, like 2026-11-24T09:30:00Z"}}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return message.Problems{{Text: "malformed JSON: the line ends within the object"}}
	}
	return message.Problems{{Text: "malformed JSON: " + strings.TrimPrefix(err.Error(), "json: ")}}
}

func kindName(kind string) string {
	switch kind {
	case "slice":
		return "list"
	case "struct", "map":
		return "object"
	case "bool":
		return "boolean"
	}
	return kind
}
