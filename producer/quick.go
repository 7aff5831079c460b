package producer

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/schemas"
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
	// ascii says that the line is.
	ascii bool
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
	kind   byte
	text   []byte
	number float64
	flag   bool
}

const (
	textField   = 1
	numberField = 2
	flagField   = 3
)

// What a byte may be part of.
const (
	inFCM    = 1 << iota // a registration token
	inID                 // idRune
	inTopic              // a bundle id
	inPath               // a URL's path, where it needs no second look
	inAnswer             // what stands in an answer without being escaped
)

var partOf = func() (t [256]byte) {
	for i := range t {
		c := byte(i)
		is := func(what byte, yes bool) {
			if yes {
				t[i] |= what
			}
		}
		id := c < utf8.RuneSelf && idRune(rune(c))
		is(inFCM, c > ' ' && c <= '~')
		is(inID, id)
		is(inTopic, id || c == '.')
		is(inPath, id || c == '/' || c == '.' || c == ':')
		is(inAnswer, c >= ' ' && c <= '~' && c != '"' && c != '\\')
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

// begin takes a line.
func (q *quick) begin(line []byte) {
	q.in, q.at = line, 0
	q.ascii, q.bad = look(line)
	q.pairs, q.tags = q.pairs[:0], q.tags[:0]
}

// look tells of a line whether it is ASCII, and whether it holds what is odd anywhere: a backslash, a control character,
// or what is not UTF-8. It looks at eight bytes at a time (Warren, Hacker's Delight, 6-1), so that texts need no second
// look.
func look(line []byte) (ascii, odd bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var high, found uint64
	rest := line
	for ; len(rest) >= 8; rest = rest[8:] {
		w := binary.LittleEndian.Uint64(rest)
		backslash, del := w^'\\'*ones, w^0x7f*ones
		high |= w
		found |= (w-' '*ones)&^w | (backslash-ones)&^backslash | (del-ones)&^del
	}
	for _, c := range rest {
		high |= uint64(c)
		odd = odd || c < ' ' || c == '\\' || c == 0x7f
	}
	ascii = high&highs == 0
	return ascii, odd || found&highs != 0 || !ascii && !utf8.Valid(line)
}

// named tells whether events.NameFault finds no fault with a text of the line.
func (q *quick) named(s []byte) bool {
	return q.ascii && len(s) > 0 && len(s) <= events.MaxName || events.NameFault(string(s)) == ""
}

// identity tells whether events.IdentityFault finds no fault with a text of the line.
func (q *quick) identity(s []byte) bool {
	return q.named(s) && bytes.IndexByte(s, '/') < 0 && bytes.IndexByte(s, '#') < 0
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
	for q.at < len(q.in) && q.in[q.at] == ' ' { // tabs are odd
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

// text reads a string; begin saw that it has no escapes.
func (q *quick) text() []byte {
	q.must('"')
	in := q.in[q.at:]
	end := bytes.IndexByte(in, '"')
	if end < 0 {
		q.bad = true
		return nil
	}
	q.at += end + 1
	return in[:end:end]
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
		q.bad = q.bad || len(q.pairs) > limit || !q.named(name)
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

// The fields' numbers here are below 16, so a tag is one byte: the number times 8, plus the wire type.
const (
	varintType  = 0
	fixed64Type = 1
	bytesType   = 2
)

// appendLength begins a field of n bytes.
func appendLength(b []byte, field byte, n int) []byte {
	if n < 0x80 {
		return append(b, field<<3|bytesType, byte(n))
	}
	return protowire.AppendVarint(append(b, field<<3|bytesType), uint64(n))
}

// appendPairs appends the entries of a map<string, Value>.
func appendPairs(b []byte, field byte, pairs []pair) []byte {
	for i := range pairs {
		p := &pairs[i]
		value := p.size()
		b = appendLength(b, field, 2+protowire.SizeBytes(len(p.name))+protowire.SizeBytes(value))
		b = schemas.AppendBytes(b, 1, p.name)
		b = p.append(appendLength(b, 2, value))
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
		return append(appendLength(b, textField, len(p.text)), p.text...)
	case numberField:
		return protowire.AppendFixed64(append(b, numberField<<3|fixed64Type), math.Float64bits(p.number))
	}
	return append(b, flagField<<3|varintType, byte(protowire.EncodeBool(p.flag)))
}
