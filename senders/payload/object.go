package payload

import (
	"strconv"

	"github.com/belfry/belfry/message"
)

// Object is a JSON object in the making: what is written first comes first, and a field that has nothing to say is left
// out. It is written once for many deliveries, so it is made for ease and not for speed. The zero value is an empty object.
type Object struct{ fields []field }

// field is one of an object's. Its kind says which of the others it has.
type field struct {
	key    string
	kind   kind
	object *Object
	text   message.Template
	// value is a plain text, or JSON as it is.
	value string
}

// kind is what a field holds, or a hole is filled with.
type kind uint8

const (
	object kind = iota
	// text has variables, variable is the hole for one.
	text
	variable
	plain
	raw
	id
	ttl
)

func (o *Object) add(f field) { o.fields = append(o.fields, f) }

// Object adds an object, which the caller then writes.
func (o *Object) Object(key string) *Object {
	child := &Object{}
	o.add(field{key: key, kind: object, object: child})
	return child
}

// Text adds a text with variables, be it empty.
func (o *Object) Text(key string, t message.Template) {
	o.add(field{key: key, kind: text, text: t})
}

// String adds a text, unless it is empty.
func (o *Object) String(key, value string) {
	if value != "" {
		o.add(field{key: key, kind: plain, value: value})
	}
}

// Uint adds a number, be it 0.
func (o *Object) Uint(key string, value uint64) {
	o.add(field{key: key, kind: raw, value: strconv.FormatUint(value, 10)})
}

// Float adds a finite number, unless it is 0.
func (o *Object) Float(key string, value float64) {
	if value != 0 {
		o.add(field{key: key, kind: raw, value: strconv.FormatFloat(value, 'f', -1, 64)})
	}
}

// Flag adds true, or nothing.
func (o *Object) Flag(key string, value bool) {
	if value {
		o.add(field{key: key, kind: raw, value: "true"})
	}
}

// ID adds the delivery's id, Values.ID.
func (o *Object) ID(key string) { o.add(field{key: key, kind: id}) }

// TTL adds Values.TTL in the JSON form of google.protobuf.Duration: "3600s".
func (o *Object) TTL(key string) { o.add(field{key: key, kind: ttl}) }

// Document is the object with holes where a delivery's values go.
func (o *Object) Document() *Document {
	d := &Document{text: make([]byte, 0, 512)} // most payloads, without growing
	d.object(o)
	return d
}

func (d *Document) object(o *Object) {
	d.text = append(d.text, '{')
	for i := range o.fields {
		if i > 0 {
			d.text = append(d.text, ',')
		}
		d.text = AppendString(d.text, o.fields[i].key)
		d.text = append(d.text, ':')
		d.value(&o.fields[i])
	}
	d.text = append(d.text, '}')
}

func (d *Document) value(f *field) {
	switch f.kind {
	case object:
		d.object(f.object)
	case text:
		d.template(f.text)
	case plain:
		d.text = AppendString(d.text, f.value)
	case raw:
		d.text = append(d.text, f.value...)
	case id:
		d.text = append(d.text, '"')
		d.hole(hole{kind: id})
		d.text = append(d.text, '"')
	case ttl:
		d.text = append(d.text, '"')
		d.hole(hole{kind: ttl})
		d.text = append(d.text, 's', '"')
	}
}

func (d *Document) template(t message.Template) {
	d.text = append(d.text, '"')
	for _, s := range t {
		if s.Name == "" {
			d.text = appendEscaped(d.text, s.Literal)
		} else {
			d.hole(hole{kind: variable, name: s.Name, fallback: string(appendEscaped(nil, s.Literal))})
		}
	}
	d.text = append(d.text, '"')
}

func (d *Document) hole(h hole) {
	h.at = len(d.text)
	d.holes = append(d.holes, h)
}
