package simulator

import (
	"net/http"

	"golang.org/x/net/http2"
)

// Request is one request to a provider, as HTTP carries it.
type Request struct {
	Service Service
	Method  string
	Path    string      // with its query, as :path has it
	Header  http.Header // by canonical names
	Body    []byte

	// From is the client's address, without its port. ntfy counts by it.
	From string
	// Session is what the provider remembers of the connection. Requests with the same one come over the same connection;
	// nil: each over one of its own.
	Session *Session
}

// Answer is what becomes of a request.
type Answer struct {
	// Status is 0 when there is no answer: the client left, or Ending says how it ended.
	Status int
	Fields []Field
	Body   []byte

	// Ending is Reset, Cut or GoAway when a fault of that kind has struck. A GoAway comes with an answer.
	Ending FaultKind
	Code   http2.ErrCode // of a Reset

	// Accepted says that the message was taken, which a fault may keep from its sender. ID is its delivery's, if it is Named.
	Accepted bool
	ID       ID
	Named    bool
}

// Field is a header field of an answer.
type Field struct{ Name, Value string }

// Header are the answer's fields.
func (a *Answer) Header() http.Header {
	h := http.Header{}
	for _, f := range a.Fields {
		h.Set(f.Name, f.Value)
	}
	return h
}

// add appends fields. Those of an answer may be shared with others.
func (a *Answer) add(fields ...Field) {
	a.Fields = append(a.Fields[:len(a.Fields):len(a.Fields)], fields...)
}

// call is a request on its way through a provider, with what is told of it before anything is verified.
type call struct {
	*Request
	app    int    // whose it looks to be; -1: nobody's
	target target // whom it is for, if that is known
	known  bool

	message any   // FCM's body, decoded
	err     error // or why it could not be
}

// provider is what a service's requests mean.
type provider interface {
	// limit is how many bytes of a body are read. A provider sees at most one more, and then says "too large".
	limit() int
	// identify fills in what a call says of itself.
	identify(c *call)
	// judge verifies a request, whole, and answers it.
	judge(c *call) Answer
	// refuse words an answer that a fault asks for. status is not 0; an empty reason is the status's usual one.
	refuse(c *call, f *Fault, status int) Answer
}
