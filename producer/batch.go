package producer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/message"
)

const (
	// maxLine bounds a line, its end not counted.
	maxLine = 64 << 10
	// A batch has at most so many lines and so many bytes; a longest line must fit.
	batchLines = 1024
	batchBytes = 128 << 10
)

// batch is some lines on their way through the stages. All that its lines are made of lies in its own room, which the
// next batch uses again when these are answered.
type batch struct {
	app   string
	now   time.Time
	first int    // number of the first line
	text  []byte // what was read, all whole lines but perhaps the stream's last
	spans []span // where each line lies in text
	lines []line
	quick quick
	room  []byte // keys and values of records
	// parsed and acked get a signal when the batch is.
	parsed, acked chan struct{}
	left          atomic.Int64             // records that Kafka has not answered yet, and one until all are handed over
	done          func(*kgo.Record, error) // note, once for all batches that this was
}

// span is a line without its end; begin is -1 for one that was too long.
type span struct{ begin, end int }

type line struct {
	number   int
	id       []byte // what could be read of its identity
	record   kgo.Record
	problems message.Problems // if there are any, there is no record
	err      error            // what Kafka said
}

var batches = sync.Pool{New: func() any {
	b := &batch{text: make([]byte, 0, batchBytes), parsed: make(chan struct{}, 1), acked: make(chan struct{}, 1)}
	b.done = b.note
	return b
}}

func newBatch(app string) *batch {
	b := batches.Get().(*batch)
	b.app, b.text, b.spans, b.room = app, b.text[:0], b.spans[:0], b.room[:0]
	return b
}

// free gives the batch away. Kafka's client has let go of a record when it has called back.
func (b *batch) free() {
	clear(b.lines)
	b.lines = b.lines[:0]
	batches.Put(b)
}

// lineReader cuts a body into batches. A batch ends when it is full, or when the next line is not there yet.
type lineReader struct {
	in     io.Reader
	app    string
	number int // of the last line that was cut
	// ahead is the next batch, with what was read and not cut yet.
	ahead *batch
	// long is true within a line that is too long.
	long bool
	// err is why there is no more: io.EOF at the body's end.
	err error
}

func newLineReader(in io.Reader, app string) *lineReader {
	return &lineReader{in: in, app: app, ahead: newBatch(app)}
}

// next returns the next batch, or nil when there is none.
func (r *lineReader) next() *batch {
	b := r.ahead
	b.first = r.number + 1
	begin, seen := 0, 0 // of the line whose end is looked for, and how far it is
	for len(b.spans) < batchLines {
		if i := bytes.IndexByte(b.text[seen:], '\n'); i >= 0 {
			r.cut(b, begin, seen+i)
			begin = seen + i + 1
			seen = begin
			continue
		}
		seen = len(b.text)
		if len(b.spans) > 0 || r.err != nil {
			break
		}
		if seen > maxLine+1 {
			b.text, seen, r.long = b.text[:0], 0, true
		}
		var n int
		n, r.err = r.in.Read(b.text[seen:cap(b.text)])
		b.text = b.text[:seen+n]
	}
	if errors.Is(r.err, io.EOF) && seen == len(b.text) && len(b.spans) < batchLines && (seen > begin || r.long) {
		r.cut(b, begin, seen)
		begin = seen
	}
	if len(b.spans) == 0 {
		return nil // a client that went away within a line: half a line is none
	}
	r.ahead = newBatch(r.app)
	r.ahead.text = append(r.ahead.text, b.text[begin:]...)
	return b
}

func (r *lineReader) cut(b *batch, begin, end int) {
	r.number++
	if r.long || end-begin > maxLine+1 { // one for a carriage return
		begin, r.long = -1, false
	}
	b.spans = append(b.spans, span{begin, end})
}

// parseLine makes one line's record, and reads what it can of its identity.
type parseLine func(b *batch, l *line, text []byte)

// parse reads a batch's lines.
func (b *batch) parse(now time.Time, parse parseLine) {
	b.now = now
	if cap(b.lines) < len(b.spans) {
		b.lines = make([]line, 0, len(b.spans)) // Kafka's client holds pointers into it: it never grows
	}
	for i, s := range b.spans {
		if s.begin < 0 {
			b.lines = append(b.lines, line{number: b.first + i, problems: tooLong})
			continue
		}
		text := bytes.TrimSpace(b.text[s.begin:s.end])
		if len(text) == 0 {
			continue
		}
		b.lines = append(b.lines, line{number: b.first + i})
		parse(b, &b.lines[len(b.lines)-1], text)
	}
	b.parsed <- struct{}{}
}

var tooLong = message.Problems{{Text: "the line is longer than " + strconv.Itoa(maxLine) + " bytes"}}

func (l *line) refuse(id string, problems message.Problems) {
	l.id, l.problems = []byte(id), problems
}

// take is the room from begin on, for a record.
func (b *batch) take(begin int) []byte { return b.room[begin:len(b.room):len(b.room)] }

// key writes the record's key, app/of.
func (b *batch) key(of []byte) []byte {
	begin := len(b.room)
	b.room = append(append(append(b.room, b.app...), '/'), of...)
	return b.take(begin)
}

// produce hands the records to Kafka in their order.
func (b *batch) produce(client *kgo.Client, topic string) {
	b.left.Store(int64(len(b.lines)) + 1)
	now, none := time.Now(), int64(1)
	for i := range b.lines {
		l := &b.lines[i]
		if len(l.problems) > 0 {
			none++
			continue
		}
		l.record.Topic, l.record.Timestamp = topic, now
		client.Produce(context.Background(), &l.record, b.done)
	}
	b.release(none)
}

// note hears what became of a record.
func (b *batch) note(r *kgo.Record, err error) {
	if err := unwritten(r, err); err != nil {
		for i := range b.lines {
			if &b.lines[i].record == r {
				b.lines[i].err = err
			}
		}
	}
	b.release(1)
}

func (b *batch) release(n int64) {
	if b.left.Add(-n) == 0 {
		b.acked <- struct{}{}
	}
}

// written is what became of the first record, for the log; ok is false when there was none.
func (b *batch) written() (err error, ok bool) {
	for i := range b.lines {
		if len(b.lines[i].problems) == 0 {
			return b.lines[i].err, true
		}
	}
	return nil, false
}

// answer appends the answers to a batch's lines.
func (b *batch) answer(out []byte) []byte {
	for i := range b.lines {
		l := &b.lines[i]
		if len(l.problems) == 0 && l.err == nil && all(l.id, inAnswer) {
			// The usual answer, without reflection.
			out = append(out, `{"line":`...)
			out = strconv.AppendInt(out, int64(l.number), 10)
			out = append(out, `,"id":"`...)
			out = append(out, l.id...)
			out = append(out, `","status":"accepted"}`+"\n"...)
			continue
		}
		a := LineAnswer{Line: l.number, ID: string(l.id), Status: "accepted"}
		switch {
		case len(l.problems) > 0:
			a.Status, a.Errors = "refused", faultsOf("", l.problems)
		case l.err != nil:
			a.Status, a.Errors = "failed", []Fault{{"", "Kafka did not take it in time: send it again"}}
		}
		text, err := json.Marshal(a)
		if err != nil {
			panic(fmt.Sprintf("producer: encode an answer: %v", err)) // strings and numbers only
		}
		out = append(append(out, text...), '\n')
	}
	return out
}
