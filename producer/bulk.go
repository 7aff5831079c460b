package producer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/message"
)

// A bulk stream goes through four stages, and each batch of lines through all of them in order: read, parsed (batches at
// the same time), handed to Kafka (line by line, which keeps a device's order), answered when Kafka has them all. The
// channels between them bound what a stream holds; a client that does not read its answers stops the last stage, and so
// the first.
const (
	maxLine    = 64 << 10
	batchLines = 256
	batchBytes = 64 << 10
	// parseQueue lets every core parse. writeQueue keeps 8,192 lines on their way to Kafka, some 8 MB, so that its latency
	// does not set the pace.
	parseQueue  = 4
	writeQueue  = 32
	streamStall = time.Minute // a client may keep a stream waiting this long, either way
)

// parseLine makes one line's record. id is what it could read of its identity.
type parseLine func(app string, line []byte) (record *kgo.Record, id string, problems message.Problems)

// LineAnswer is the answer to one line.
type LineAnswer struct {
	Line   int     `json:"line" doc:"The line's number, from 1. Empty lines are counted, and not answered"`
	ID     string  `json:"id,omitempty"`
	Status string  `json:"status" enum:"accepted,refused,failed" doc:"accepted: Kafka has it. refused: mend it. failed: Kafka did not take it, send it again"`
	Errors []Fault `json:"errors,omitempty"`
}

// batch is some lines on their way through the stages.
type batch struct {
	first  int // number of the first line
	text   []byte
	ends   []int // where each line ends in text; -1 for one that was too long
	lines  []line
	parsed chan struct{}
	acked  sync.WaitGroup
}

type line struct {
	number   int
	id       string
	record   *kgo.Record
	problems message.Problems
	err      error
}

func (s *Server) bulkRoute(api huma.API, path, id, scope, summary, description string, line reflect.Type, parse parseLine) {
	schemas := api.OpenAPI().Components.Schemas
	op := operation(http.MethodPost, path, id, scope, summary, description+
		" Each line is answered in order, on a line of its own, once Kafka has it; a line that is refused does not hold up the others. "+
		"Read the answers while you send: who does not is not read from either. Lines without an answer were not taken.",
		http.StatusOK, http.StatusTooManyRequests)
	op.MaxBodyBytes = -1
	op.Responses = map[string]*huma.Response{"200": {
		Description: "One answer per line",
		Content: map[string]*huma.MediaType{"application/x-ndjson": {
			Schema: schemas.Schema(reflect.TypeFor[LineAnswer](), true, "LineAnswer"),
		}},
	}}
	huma.Register(api, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		if !s.streams.TryAcquire(1) {
			p := problem(http.StatusTooManyRequests, "busy", "As many bulk streams run as may at once. Wait as Retry-After says, or send more on one.")
			p.retryAfter = retryAfter
			return nil, p
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			defer s.streams.Release(1)
			r, w := humago.Unwrap(ctx)
			s.bulk(r, w, appOf(ctx.Context()), parse)
		}}, nil
	})
	// Described only now: huma reads the body of an operation whose body it knows.
	api.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/x-ndjson": {Schema: schemas.Schema(line, true, line.Name())},
	}}
}

// bulk runs one stream. It returns when all that was read is answered.
func (s *Server) bulk(r *http.Request, w http.ResponseWriter, app string, parse parseLine) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 needs none
	// What ends the stream: the client going away, or this process stopping. Reading then fails at once.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	defer context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })()

	read, written := make(chan *batch, parseQueue), make(chan *batch, writeQueue)
	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(read)
		in := lineReader{in: bufio.NewReaderSize(r.Body, maxLine+2)}
		for !in.over {
			_ = control.SetReadDeadline(time.Now().Add(streamStall))
			if ctx.Err() != nil {
				return
			}
			if b := in.next(); len(b.ends) > 0 {
				go b.parse(app, parse) // the next stage waits for it
				read <- b
			}
		}
	})
	stages.Go(func() {
		defer close(written)
		for b := range read {
			<-b.parsed
			s.produce(b)
			written <- b
		}
	})
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	s.answer(w, control, written, cancel)
	stages.Wait()
}

// answer answers batches until there are no more. When nobody hears the answers it ends the stream: what was read still
// goes to Kafka, no more is read.
func (s *Server) answer(w http.ResponseWriter, control *http.ResponseController, written <-chan *batch, end func()) {
	var answers []byte
	for b := range written {
		b.acked.Wait()
		b.note(s)
		answers = b.answer(answers[:0])
		_ = control.SetWriteDeadline(time.Now().Add(streamStall))
		_, err := w.Write(answers)
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			end()
		}
	}
}

// produce hands a batch's records to Kafka in their order.
func (s *Server) produce(b *batch) {
	for i := range b.lines {
		l := &b.lines[i]
		if l.record == nil {
			continue
		}
		b.acked.Add(1)
		s.writer.produce(l.record, func(err error) {
			l.err = err
			b.acked.Done()
		})
	}
}

// note tells the log when Kafka stops or begins again to take records.
func (b *batch) note(s *Server) {
	for i := range b.lines {
		if b.lines[i].record != nil {
			s.noteKafka(b.lines[i].err)
			return
		}
	}
}

// lineReader cuts a body into batches. A batch ends when it is full, or when the next line is not there yet.
type lineReader struct {
	in     *bufio.Reader
	number int
	over   bool
}

func (r *lineReader) next() *batch {
	b := &batch{first: r.number + 1, parsed: make(chan struct{})}
	for len(b.ends) < batchLines && len(b.text) < batchBytes {
		text, err := r.in.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.in.ReadSlice('\n')
		}
		r.over = err != nil
		if err != nil && (!errors.Is(err, io.EOF) || len(text) == 0) {
			// The end, or a client that went away within a line: half a line is none.
			return b
		}
		r.number++
		if tooLong {
			b.ends = append(b.ends, -1)
		} else {
			b.text = append(b.text, text...)
			b.ends = append(b.ends, len(b.text))
		}
		if r.over || !r.lineBuffered() {
			return b
		}
	}
	return b
}

func (r *lineReader) lineBuffered() bool {
	rest, _ := r.in.Peek(r.in.Buffered())
	return bytes.IndexByte(rest, '\n') >= 0
}

// parse reads a batch's lines.
func (b *batch) parse(app string, parse parseLine) {
	defer close(b.parsed)
	b.lines = make([]line, 0, len(b.ends))
	begin := 0
	for i, end := range b.ends {
		l := line{number: b.first + i}
		if end < 0 {
			l.problems = message.Problems{{Text: "the line is longer than " + strconv.Itoa(maxLine) + " bytes"}}
			b.lines = append(b.lines, l)
			continue
		}
		text := bytes.TrimSpace(b.text[begin:end])
		begin = end
		if len(text) == 0 {
			continue
		}
		l.record, l.id, l.problems = parse(app, text)
		b.lines = append(b.lines, l)
	}
	b.text = nil
}

var accepted = []byte(`","status":"accepted"}`)

// answer appends the answers to a batch's lines.
func (b *batch) answer(out []byte) []byte {
	for i := range b.lines {
		l := &b.lines[i]
		if len(l.problems) == 0 && l.err == nil && plain(l.id) {
			// The usual answer, without reflection.
			out = append(out, `{"line":`...)
			out = strconv.AppendInt(out, int64(l.number), 10)
			out = append(out, `,"id":"`...)
			out = append(out, l.id...)
			out = append(append(out, accepted...), '\n')
			continue
		}
		a := LineAnswer{Line: l.number, ID: l.id, Status: "accepted"}
		switch {
		case len(l.problems) > 0:
			a.Status, a.Errors = "refused", faultsOf("", l.problems)
		case l.err != nil:
			a.Status, a.Errors = "failed", []Fault{{"", "Kafka did not take it in time: send it again"}}
		}
		text, err := json.Marshal(a)
		if err != nil {
			panic("producer: encode an answer: " + err.Error()) // strings and numbers only
		}
		out = append(append(out, text...), '\n')
	}
	return out
}

// plain tells whether s can stand in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
