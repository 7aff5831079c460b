package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// MaxBytes bounds one event in either form.
const MaxBytes = 64 << 10

// MaxFields bounds the fields of an event.
const MaxFields = 100

// Event is the JSON form of pb.Event.
type Event struct {
	// App is told by the key when the event comes through the API, and must be given on Kafka.
	App  string `json:"app,omitempty" doc:"The key tells it: leave it out, except on Kafka."`
	ID   string `json:"id" doc:"Unique within the app. A rule fires once for an id." maxLength:"128"`
	Name string `json:"name" doc:"What happened, e.g. order.shipped." maxLength:"128"`
	User string `json:"user" doc:"Whom it happened to." maxLength:"128"`
	// At is the zero time when not told: the API then sets its own, and on Kafka the record's timestamp stands for it.
	At     time.Time      `json:"at,omitzero" doc:"When it happened, RFC 3339. Now, if not told."`
	Fields map[string]any `json:"fields,omitempty" doc:"What rules and templates may name. Values are strings, numbers or booleans."`
}

// Parse reads a record's value: JSON when its first byte is "{" (which begins no protobuf event), else protobuf. Its
// error is message.Problems when the form is right and a field is not.
func Parse(value []byte) (*pb.Event, error) {
	switch {
	case len(value) == 0:
		return nil, errors.New("event: the value is empty: produce JSON or protobuf as docs/kafka.md says")
	case len(value) > MaxBytes:
		return nil, fmt.Errorf("event: %d bytes are more than the %d allowed: send less in its fields", len(value), MaxBytes)
	case value[0] == '{':
		e, err := decode(value)
		if err != nil {
			return nil, err
		}
		return e.Proto()
	}
	e := &pb.Event{}
	if err := proto.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("event: neither JSON nor a protobuf belfry.v1.Event: %w", err)
	}
	if p := Check(e); len(p) > 0 {
		return nil, p
	}
	return e, nil
}

// decode reads the JSON form without judging its fields.
func decode(value []byte) (*Event, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	e := &Event{}
	if err := d.Decode(e); err != nil {
		return nil, fmt.Errorf("event: malformed JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("event: malformed JSON: more follows the object")
	}
	return e, nil
}

// Proto checks every field and returns the record's form. Its error is message.Problems.
func (e *Event) Proto() (*pb.Event, error) {
	fields, problems := Values("fields", e.Fields)
	out := &pb.Event{App: e.App, Id: e.ID, Name: e.Name, User: e.User, Fields: fields}
	if !e.At.IsZero() {
		out.At = e.At.UnixMilli()
	}
	problems = append(problems, Check(out)...)
	if len(problems) > 0 {
		return nil, problems
	}
	return out, nil
}

// Encode is the value that Belfry itself writes to belfry.events.
func Encode(e *pb.Event) ([]byte, error) { return proto.Marshal(e) }

var appForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Check returns every fault of an event.
func Check(e *pb.Event) message.Problems {
	var problems message.Problems
	add := func(field, text string) {
		if text != "" {
			problems = append(problems, message.Problem{Field: field, Text: text})
		}
	}
	if !appForm.MatchString(e.App) {
		add("app", "must be an app's name: lower-case letters, digits and -, at most 32")
	}
	add("id", NameFault(e.Id))
	add("name", NameFault(e.Name))
	add("user", IdentityFault(e.User))
	if e.At < 0 {
		add("at", "must not lie before 1970")
	}
	if len(e.Fields) > MaxFields {
		add("fields", fmt.Sprintf("has %d entries; at most %d are allowed", len(e.Fields), MaxFields))
	}
	return problems
}
