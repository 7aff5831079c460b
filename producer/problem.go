package producer

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/belfry/belfry/message"
)

// Problem is an RFC 9457 problem: what is wrong, where, and what to do. Clients tell problems apart by Type.
type Problem struct {
	Type   string  `json:"type" doc:"A stable name, urn:belfry:problem:… (docs/api.md lists them)" example:"urn:belfry:problem:invalid"`
	Title  string  `json:"title" doc:"What the type means"`
	Status int     `json:"status" doc:"The HTTP status"`
	Detail string  `json:"detail" doc:"What happened here, and what to do"`
	Errors []Fault `json:"errors,omitempty" doc:"The fields at fault"`

	retryAfter time.Duration
}

// Fault is what is wrong with one field.
type Fault struct {
	Field string `json:"field" doc:"As written in JSON, e.g. message.apns.priority. Empty for the whole body"`
	Text  string `json:"text" doc:"What is wrong with it"`
}

const problemType = "urn:belfry:problem:"

// titles of the problem types. A type is a promise: add, never rename.
var titles = map[string]string{
	"malformed":           "The request cannot be read",
	"invalid":             "A field is not as it must be",
	"unauthorized":        "The API key is missing or unknown",
	"forbidden":           "The API key may not do this",
	"not-found":           "There is no such thing",
	"method-not-allowed":  "The path does not know this method",
	"too-large":           "The body is too large",
	"media-type":          "The Content-Type is not JSON",
	"refused":             "The state of what it concerns does not allow this",
	"incomplete":          "Not all devices that were accepted are known yet",
	"idempotency-reused":  "The Idempotency-Key was used for another request",
	"idempotency-running": "The first request with this Idempotency-Key is still being handled",
	"busy":                "Too much is being written at once",
	"unavailable":         "Something that Belfry needs cannot be reached",
	"internal":            "Belfry made a mistake",
}

// typeOf names the problem type of a status that huma itself answers with, or a stream that ends early.
var typeOf = map[int]string{
	http.StatusBadRequest:            "malformed",
	http.StatusUnauthorized:          "unauthorized",
	http.StatusForbidden:             "forbidden",
	http.StatusNotFound:              "not-found",
	http.StatusMethodNotAllowed:      "method-not-allowed",
	http.StatusRequestTimeout:        "malformed",
	http.StatusRequestEntityTooLarge: "too-large",
	http.StatusUnsupportedMediaType:  "media-type",
	http.StatusUnprocessableEntity:   "invalid",
	http.StatusTooManyRequests:       "busy",
}

// write answers with a problem where huma has no hand.
func write(w http.ResponseWriter, p *Problem) {
	for name, values := range p.GetHeaders() {
		w.Header().Set(name, values[0])
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that is gone cannot be told
}

func problem(status int, name, detail string, faults ...Fault) *Problem {
	return &Problem{Type: problemType + name, Title: titles[name], Status: status, Detail: detail, Errors: faults}
}

// Error, GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (p *Problem) Error() string { return p.Detail }

func (p *Problem) GetStatus() int { return p.Status }

func (p *Problem) ContentType(string) string { return "application/problem+json" }

func (p *Problem) GetHeaders() http.Header {
	if p.retryAfter == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(int(p.retryAfter.Seconds()))}}
}

// invalid is the problem of a body whose fields are at fault. err is message.Problems or one error about field.
func invalid(field string, err error) *Problem {
	var faults []Fault
	if problems, ok := errors.AsType[message.Problems](err); ok {
		faults = faultsOf(field, problems)
	} else {
		faults = []Fault{{field, err.Error()}}
	}
	return problem(http.StatusUnprocessableEntity, "invalid", "Mend the fields in errors and send it again.", faults...)
}

// faultsOf puts problems below the field that holds what they were found in.
func faultsOf(field string, problems message.Problems) []Fault {
	faults := make([]Fault, len(problems))
	for i, p := range problems {
		at := p.Field
		if field != "" && at != "" {
			at = field + "." + at
		} else if at == "" {
			at = field
		}
		faults[i] = Fault{at, p.Text}
	}
	return faults
}

// fromHuma gives huma's own findings (unreadable JSON, a value against its schema) the form of every other problem. It
// never repeats the value at fault: that may be a token.
func fromHuma(status int, msg string, errs ...error) huma.StatusError {
	name, ok := typeOf[status]
	if !ok {
		// An error that no handler made a problem of says nothing to clients.
		return problem(http.StatusInternalServerError, "internal", "Try again; if it stays, tell the operator.")
	}
	var faults []Fault
	for _, err := range errs {
		detailer, ok := err.(huma.ErrorDetailer)
		if !ok {
			continue
		}
		d := detailer.ErrorDetail()
		field := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body"), ".")
		faults = append(faults, Fault{field, d.Message})
	}
	return problem(status, name, sentence(status, msg), faults...)
}

func sentence(status int, msg string) string {
	switch status {
	case http.StatusUnsupportedMediaType:
		return "Send JSON with the header Content-Type: application/json."
	case http.StatusBadRequest:
		return "Send a JSON object as the documentation at /docs describes it."
	case http.StatusUnprocessableEntity:
		return "Mend the fields in errors and send it again."
	case http.StatusRequestTimeout:
		return "The body came too slowly. Send it again."
	}
	return strings.ToUpper(msg[:1]) + msg[1:] + "."
}

func init() {
	// The only way that huma offers to choose the form of errors is this variable of its package.
	huma.NewError = fromHuma
}
