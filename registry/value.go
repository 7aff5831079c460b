package registry

import (
	"cmp"
	"strings"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// kind is what a value is. Values of two kinds are never equal, and neither is the smaller.
type kind uint8

const (
	// missing is an attribute that the device does not have, or a version that is none. It equals nothing, itself included.
	missing kind = iota
	text
	number
	flag
	moment
	version
	// anyKind is known only of a device: an attribute's.
	anyKind
)

func (k kind) String() string {
	return [...]string{"missing", "a text", "a number", "true or false", "a time", "a version", "an attribute"}[k]
}

// value is one operand's value for one device. It is passed by value: matching allocates nothing.
type value struct {
	kind kind
	// Of a text or a version.
	text string
	// Of a number; a moment's Unix ms; a flag's 0 or 1. Unix ms are exact in a float64.
	number float64
}

func textValue(s string) value { return value{kind: text, text: s} }

func numberValue(n float64) value { return value{kind: number, number: n} }

func momentValue(ms int64) value { return value{kind: moment, number: float64(ms)} }

func flagValue(b bool) value {
	if b {
		return value{kind: flag, number: 1}
	}
	return value{kind: flag}
}

// attribute reads one of a device's own fields.
func attribute(d *pb.Device, key string) value {
	switch v := d.Attributes[key].GetKind().(type) {
	case *pb.Value_Text:
		return textValue(v.Text)
	case *pb.Value_Number:
		return numberValue(v.Number)
	case *pb.Value_Flag:
		return flagValue(v.Flag)
	}
	return value{}
}

// language is the first part of a BCP 47 tag, as it is: "fr" of "fr-CA".
func language(locale string) string {
	if i := strings.IndexAny(locale, "-_"); i >= 0 {
		return locale[:i]
	}
	return locale
}

// compare orders two values. ok is false where they have no order.
func compare(a, b value) (order int, ok bool) {
	if a.kind != b.kind {
		return 0, false
	}
	switch a.kind {
	case text:
		return strings.Compare(a.text, b.text), true
	case version:
		return compareVersions(a.text, b.text)
	case number, moment, flag:
		// NaN has no order.
		return cmp.Compare(a.number, b.number), a.number == a.number && b.number == b.number
	}
	return 0, false
}
