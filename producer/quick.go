package producer

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/belfry/belfry/events"
)

// quick reads the JSON that bulk streams are made of, judges it and writes its record, all from the line's own bytes and
// into bytes that are used again: encoding/json, structs and package proto would take most of a stream's time. It knows
// plain texts, plain numbers, true and false, and gives up on all else: escapes, exponents, null, unknown or repeated
// fields, whatever is malformed, and whatever a field must not be. The slow way then reads the line anew and says what is
// wrong with it, so that there is one judge; fuzz tests compare the two.
//
// What it read points into the line, until it reads the next.
type quick struct {
	in []byte
	at int
	// bad says that it gave up.
	bad    bool
	device quickDevice
	event  quickEvent
	// pairs, tags, body and inner are room that is used again.
	pairs       []pair
	tags        [][]byte
	body, inner []byte
}

// pair is one attribute of a device, or one field of an event.
type pair struct {
	name []byte
	// kind is the number of the field of pb.Value that holds it.
	kind   protowire.Number
	text   []byte
	number float64
	flag   bool
}

const (
	textField   = 1
	numberField = 2
	flagField   = 3
)

// What a byte may be part of. Letters beyond ASCII are left to the slow judges.
const (
	inText     = 1 << iota // a JSON text, as it stands there
	inName                 // what events.NameFault lets pass
	inIdentity             // what events.IdentityFault lets pass
	inFCM                  // a registration token
	inID                   // idRune
	inTopic                // a bundle id
	inAnswer               // what stands in an answer without being escaped
)

var partOf = func() (t [256]byte) {
	for i := range t {
		c := byte(i)
		is := func(what byte, yes bool) {
			if yes {
				t[i] |= what
			}
		}
		printable := c >= ' ' && c <= '~'
		is(inText, c >= ' ' && c != '"' && c != '\\')
		is(inName, printable)
		is(inIdentity, printable && c != '/' && c != '#')
		is(inFCM, printable && c != ' ')
		is(inID, c < utf8.RuneSelf && idRune(rune(c)))
		is(inTopic, c < utf8.RuneSelf && idRune(rune(c)) || c == '.')
		is(inAnswer, printable && c != '"' && c != '\\')
	}
	return t
}()

// all tells whether every byte of s may be part of what.
func all(s []byte, what byte) bool {
	for _, c := range s {
		if partOf[c]&what == 0 {
			return false
		}
	}
	return true
}

// named tells whether events.NameFault finds no fault with s.
func named(s []byte) bool {
	return len(s) > 0 && len(s) <= events.MaxName && all(s, inName) || events.NameFault(string(s)) == ""
}

// identity tells whether events.IdentityFault finds no fault with s.
func identity(s []byte) bool {
	return len(s) > 0 && len(s) <= events.MaxName && all(s, inIdentity) || events.IdentityFault(string(s)) == ""
}

// begin takes a line.
func (q *quick) begin(line []byte) {
	q.in, q.at, q.bad = line, 0, !utf8.Valid(line)
	q.pairs, q.tags = q.pairs[:0], q.tags[:0]
}

// ended tells whether the line was read to its end, and nothing was odd.
func (q *quick) ended() bool {
	q.space()
	return !q.bad && q.at == len(q.in)
}

// once gives up on a field that is there again.
func (q *quick) once(seen *bool) {
	q.bad = q.bad || *seen
	*seen = true
}

func (q *quick) space() {
	for q.at < len(q.in) && (q.in[q.at] == ' ' || q.in[q.at] == '\t' || q.in[q.at] == '\r' || q.in[q.at] == '\n') {
		q.at++
	}
}

// eat takes c, if it is next after space.
func (q *quick) eat(c byte) bool {
	if q.at < len(q.in) && q.in[q.at] != c {
		q.space()
	}
	if q.at < len(q.in) && q.in[q.at] == c {
		q.at++
		return true
	}
	return false
}

// must takes c, or gives up.
func (q *quick) must(c byte) { q.bad = !q.eat(c) || q.bad }

// object calls field for each field, which reads its value.
func (q *quick) object(field func(name []byte)) {
	q.must('{')
	for first := true; !q.bad && !q.eat('}'); first = false {
		if !first {
			q.must(',')
		}
		name := q.text()
		q.must(':')
		if !q.bad {
			field(name)
		}
	}
}

// text reads a string without escapes.
func (q *quick) text() []byte {
	q.must('"')
	in := q.in[q.at:]
	for i, c := range in {
		if partOf[c]&inText == 0 {
			q.at += i + 1
			q.bad = q.bad || c != '"'
			return in[:i:i]
		}
	}
	q.at, q.bad = len(q.in), true
	return nil
}

// only reads a string into a place that must not have been read before. In the line an empty text is not nil.
func (q *quick) only(to *[]byte) {
	q.bad = q.bad || *to != nil
	*to = q.text()
}

// texts reads a list of strings into q.tags, at most limit.
func (q *quick) texts(limit int) {
	q.must('[')
	for first := true; !q.bad && !q.eat(']'); first = false {
		if !first {
			q.must(',')
		}
		q.tags = append(q.tags, q.text())
		q.bad = q.bad || len(q.tags) > limit
	}
}

// values reads an object of texts, numbers and booleans into q.pairs, at most limit.
func (q *quick) values(limit int) {
	q.object(func(name []byte) {
		for i := range q.pairs {
			// The last of them would count.
			q.bad = q.bad || bytes.Equal(q.pairs[i].name, name)
		}
		p := pair{name: name}
		q.value(&p)
		q.pairs = append(q.pairs, p)
		q.bad = q.bad || len(q.pairs) > limit || !named(name)
	})
}

// value reads a text, a number or a boolean.
func (q *quick) value(p *pair) {
	q.space()
	switch rest := q.in[q.at:]; {
	case len(rest) > 0 && rest[0] == '"':
		p.kind, p.text = textField, q.text()
	case bytes.HasPrefix(rest, []byte("true")):
		q.at += len("true")
		p.kind, p.flag = flagField, true
	case bytes.HasPrefix(rest, []byte("false")):
		q.at += len("false")
		p.kind = flagField
	default:
		p.kind, p.number = numberField, q.number()
	}
}

// number reads digits with perhaps a minus before and a point between them, and no leading zero.
func (q *quick) number() float64 {
	begin := q.at
	if q.at < len(q.in) && q.in[q.at] == '-' {
		q.at++
	}
	first, point := q.at, false
	for ; q.at < len(q.in); q.at++ {
		c := q.in[q.at]
		if c == '.' && !point && q.at > first {
			point = true
		} else if c < '0' || c > '9' {
			break
		}
	}
	digits := q.in[first:q.at]
	if len(digits) == 0 || digits[len(digits)-1] == '.' || digits[0] == '0' && len(digits) > 1 && digits[1] != '.' {
		q.bad = true
		return 0
	}
	f, err := strconv.ParseFloat(string(q.in[begin:q.at]), 64)
	q.bad = q.bad || err != nil
	return f
}

// appendText appends a field as proto3 does: not at all if it is empty.
func appendText[T string | []byte](b []byte, field protowire.Number, s T) []byte {
	if len(s) == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendInt(b []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
}

// appendPairs appends the entries of a map<string, Value>.
func appendPairs(b []byte, field protowire.Number, pairs []pair) []byte {
	for i := range pairs {
		p := &pairs[i]
		value := p.size()
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(2+protowire.SizeBytes(len(p.name))+protowire.SizeBytes(value)))
		b = appendText(b, 1, p.name)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(value))
		b = p.append(b)
	}
	return b
}

// size is how long append's bytes are.
func (p *pair) size() int {
	switch p.kind {
	case textField:
		return 1 + protowire.SizeBytes(len(p.text))
	case numberField:
		return 1 + protowire.SizeFixed64()
	}
	return 2
}

// append appends a pb.Value. Its kind is a oneof, so what is empty, zero or false is written too.
func (p *pair) append(b []byte) []byte {
	switch p.kind {
	case textField:
		b = protowire.AppendTag(b, textField, protowire.BytesType)
		return protowire.AppendBytes(b, p.text)
	case numberField:
		b = protowire.AppendTag(b, numberField, protowire.Fixed64Type)
		return protowire.AppendFixed64(b, math.Float64bits(p.number))
	}
	b = protowire.AppendTag(b, flagField, protowire.VarintType)
	return protowire.AppendVarint(b, protowire.EncodeBool(p.flag))
}
