package producer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

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
		return message.Problems{{Field: wrong.Field, Text: fmt.Sprintf("is a JSON %s; must be a %s", wrong.Value, kindName(wrong.Type.Kind().String()))}}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return message.Problems{{Field: strings.Trim(name, `"`), Text: "is not known here"}}
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
