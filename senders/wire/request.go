package wire

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Kind says how a field goes into the header block (RFC 7541 section 6).
type Kind uint8

const (
	// Once differs from request to request: a literal without indexing (section 6.2.2).
	Once Kind = iota
	// Shared is the same for many requests: it goes into the dynamic table, and a few bytes stand for it from then on
	// (section 6.2.1). That is right even for an authorization, when many requests carry the same: the table is the
	// connection's, and both its ends are trusted (section 7.1).
	Shared
	// Secret is secret and differs as well: a literal that no intermediary may put into a table (section 6.2.3).
	Secret
)

// Field is a header field. Its name is in lower case, and no pseudo-header; content-length is not among a request's, for the
// client sets it.
type Field struct {
	Name, Value string
	Kind        Kind
}

// Request is one POST. Path is as it goes on the wire, escaped, with its query. The client refers to all of it, without changing it, until its Result is handed over. From then on
// it is the caller's again.
type Request struct {
	Path   string
	Fields []Field
	Body   []byte
	// Timeout ends the request with os.ErrDeadlineExceeded so long after it was sent by Send, at most some 50 ms late. 0: never. Time
	// in which this process does not run, because others have the cores or it is stopped, does not count: what the peer answered
	// meanwhile is there, unread.
	Timeout time.Duration
	// Handler gets the result.
	Handler Handler
	// Tag is the caller's own.
	Tag any

	// due is when it ends, in the client's time (watch.go).
	due time.Time
}

// Handler takes results in batches.
//
// Each connection calls from one goroutine for its answers, and several at the same time; deadlines, failed dials and requests
// that are invalid call from others. It must not block, nor call Close: no answer on that connection is read meanwhile. The results, and what they
// refer to but for the requests, are the client's again when it returns. A handler's type must be comparable, as pointers are:
// results in a row for the same one come together.
type Handler interface {
	Answered(results []Result)
}

// Result is how a request ended: by an answer, when Status is above 0, or by Err. Each request has exactly one.
type Result struct {
	Request *Request
	// Status is of the final response, from 200.
	Status int
	Header Header
	// Body is the answer's, cut at 4 KiB.
	Body []byte
	// Err is an http2.StreamError for a stream reset by either side (RFC 9113 section 5.4.2; REFUSED_STREAM means that
	// nothing was processed), a *GoAwayError, an *InvalidError, os.ErrDeadlineExceeded, ErrClosed, ErrSilent, an http2.ConnectionError for a peer that broke
	// the protocol, or what net and crypto/tls made of a failed dial or a lost connection.
	Err error
	// Sent says that the request began to leave, so the peer may have processed it.
	Sent bool

	via    carrier
	answer *answer // what Header and Body are of
}

// Header are the fields of an answer.
type Header struct{ fields []hpack.HeaderField }

// NewHeader makes a Header of net/http's.
func NewHeader(h http.Header) Header {
	fields := make([]hpack.HeaderField, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			fields = append(fields, hpack.HeaderField{Name: strings.ToLower(name), Value: value})
		}
	}
	return Header{fields}
}

// Get is the first value of a field, or empty. The name is in lower case.
func (h Header) Get(name string) string {
	for i := range h.fields {
		if h.fields[i].Name == name {
			return h.fields[i].Value
		}
	}
	return ""
}

// InvalidError ends a request that has a path or field that HTTP/2 does not permit. Nothing of it was sent.
type InvalidError struct {
	// Field is its name, ":path", or "name" for a field whose name is the fault.
	Field string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("the request's %s is none that HTTP/2 permits: it has control characters, or blanks at its ends", e.Field)
}

// ErrClosed ends the requests of a client that was closed.
var ErrClosed = errors.New("the client is closed")

// ErrSilent ends the requests of a connection on which the peer was silent, and did not answer a PING either.
var ErrSilent = errors.New("the connection was cut without a word: no answer to a PING")

// GoAwayError ends a request that had no answer when a connection that said GOAWAY closed (RFC 9113 section 6.8), or one that
// was above the last stream of several such connections in a row.
type GoAwayError struct {
	Code http2.ErrCode
	// LastStream is the highest that the peer may have processed.
	LastStream uint32
	// Debug is what the peer said beside, cut at 256 bytes. It is the peer's word, so it is not part of the error's text.
	Debug string
}

func (e *GoAwayError) Error() string {
	return fmt.Sprintf("the peer closed the connection: GOAWAY %v, last stream %d", e.Code, e.LastStream)
}
