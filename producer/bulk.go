package producer

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// A bulk stream goes through four stages, and each batch of lines through all of them in order: read, parsed (batches at
// the same time), handed to Kafka (line by line, which keeps a device's order), answered when Kafka has them all. The
// channels between them bound what a stream holds; a client that does not read its answers stops the last stage, and so
// the first.
const (
	// parseQueue lets every core parse. writeQueue keeps some 8,000 lines on their way to Kafka, in some 8 MB, so that its
	// latency does not set the pace.
	parseQueue = 4
	writeQueue = 20
	// answerBytes go to the client at once, if they are there at once.
	answerBytes = 32 << 10
	streamStall = time.Minute // a client may keep a stream waiting this long, either way
	// recallStall is how long it may leave answers unread when another app waits for its slot.
	recallStall = 5 * time.Second
)

// LineAnswer is the answer to one line.
type LineAnswer struct {
	Line   int     `json:"line" doc:"The line's number, from 1. Empty lines are counted, and not answered"`
	ID     string  `json:"id,omitempty"`
	Status string  `json:"status" enum:"accepted,refused,failed" doc:"accepted: Kafka has it. refused: mend it. failed: it was not taken, send it again"`
	Errors []Fault `json:"errors,omitempty"`
}

func (s *Server) bulkRoute(api huma.API, path, topic, id, scope, summary, description string, line reflect.Type, parse parseLine) {
	topic = s.options.Kafka.Topic(topic)
	schemas := api.OpenAPI().Components.Schemas
	op := operation(http.MethodPost, path, id, scope, summary, description+
		" Each line is answered in order, on a line of its own, once Kafka has it; a line that is refused does not hold up the others. "+
		"Read the answers while you send: who does not is not read from either. Lines without an answer were not taken. "+
		"A stream that is too slow (408), or whose slot another app needs, ends with a line that failed and says so.",
		http.StatusOK, http.StatusRequestTimeout, http.StatusTooManyRequests)
	op.MaxBodyBytes = -1
	op.Responses = map[string]*huma.Response{"200": {
		Description: "One answer per line",
		Content: map[string]*huma.MediaType{"application/x-ndjson": {
			Schema: schemas.Schema(reflect.TypeFor[LineAnswer](), true, "LineAnswer"),
		}},
	}}
	huma.Register(api, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		if err := s.kafkaRefuses(); err != nil {
			return nil, err
		}
		slot, err := s.streams.take(ctx, appOf(ctx), 1)
		if err != nil {
			return nil, busy(retryAfter, "The app has as many bulk streams as it may at once. Wait as Retry-After says, or send more on one.")
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			defer slot.release()
			r, w := humago.Unwrap(ctx)
			s.bulk(r, w, slot, topic, parse)
		}}, nil
	})
	// Described only now: huma reads the body of an operation whose body it knows.
	api.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/x-ndjson": {Schema: schemas.Schema(line, true, line.Name())},
	}}
}

// bulk runs one stream. It returns when all that was read is answered.
func (s *Server) bulk(r *http.Request, w http.ResponseWriter, slot *part, topic string, parse parseLine) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 needs none
	// What ends the stream: the client going away, another app that needs its slot, or this process stopping. Reading then
	// fails at once.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	defer context.AfterFunc(slot.back, func() {
		cancel()
		_ = control.SetWriteDeadline(time.Now().Add(recallStall))
	})()
	defer context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })()

	in := newLineReader(newPacedBody(ctx, r.Body, control.SetReadDeadline, s.stall), slot.app)
	read, written := make(chan *batch, parseQueue), make(chan *batch, writeQueue)
	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(read)
		for b := in.next(); b != nil; b = in.next() {
			go b.parse(s.now(), parse) // the next stage waits for it
			read <- b
			if ctx.Err() != nil {
				return
			}
		}
	})
	stages.Go(func() {
		defer close(written)
		for b := range read {
			<-b.parsed
			b.produce(s.bulkClient, topic)
			written <- b
		}
	})
	out := &answers{to: w, control: control, end: cancel, stall: s.stall, back: slot.back}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.answer(out, written)
	stages.Wait()
	switch {
	case in.err == errSlow:
		out.close(in.number+1, http.StatusRequestTimeout, "The stream was ended: "+errSlow.Error()+".")
	case slot.back.Err() != nil:
		out.close(in.number+1, http.StatusTooManyRequests, "The stream was ended for another app, which had none: send this line and those after it again.")
	}
}

// answer answers batches until there are no more. It collects answers while the next batch is on Kafka already, and
// sends what it has before it waits.
func (s *Server) answer(out *answers, written <-chan *batch) {
	for {
		b, ok := receive(written, out.send)
		if !ok {
			out.send()
			return
		}
		receive(b.acked, out.send)
		if err, ok := b.written(); ok {
			s.noteKafka(err)
		}
		out.text = b.answer(out.text)
		b.free()
		if len(out.text) >= answerBytes {
			out.send()
		}
	}
}

// receive receives from c, and if that means waiting, does something before.
func receive[T any](c <-chan T, before func()) (v T, ok bool) {
	select {
	case v, ok = <-c:
	default:
		before()
		v, ok = <-c
	}
	return v, ok
}

// answers are a stream's way back. When nobody hears them it ends the stream: what was read still goes to Kafka, no more
// is read.
type answers struct {
	to      http.ResponseWriter
	control *http.ResponseController
	end     func()
	text    []byte
	begun   bool // something was sent
	// stall is how long the client may leave answers unread; less once back is done.
	stall time.Duration
	back  context.Context
}

func (a *answers) send() {
	if len(a.text) == 0 {
		return
	}
	stall := a.stall
	if a.back.Err() != nil {
		stall = recallStall
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(stall))
	a.begun = true
	_, err := a.to.Write(a.text)
	if err == nil {
		err = a.control.Flush()
	}
	if err != nil {
		a.end()
	}
	a.text = a.text[:0]
}

// close says why the stream was ended before its end: as a problem, or, when answers are on their way, as the answer to the first
// line that was not taken.
func (a *answers) close(line, status int, why string) {
	if a.begun {
		text, err := json.Marshal(LineAnswer{Line: line, Status: "failed", Errors: []Fault{{"", why}}})
		if err != nil {
			panic("producer: encode an answer: " + err.Error()) // strings and numbers only
		}
		a.text = append(text, '\n')
		a.send()
		return
	}
	p := problem(status, typeOf[status], why)
	if status == http.StatusTooManyRequests {
		p.retryAfter = retryAfter
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(recallStall))
	write(a.to, p)
}
