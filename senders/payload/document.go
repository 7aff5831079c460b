package payload

import (
	"strconv"
	"sync/atomic"

	"github.com/belfry/belfry/message"
)

// Document is a JSON object made once for many deliveries: everything that is the same for them is text that is escaped
// already, with holes in between for what is not. [Object.Document] makes one. It is safe for concurrent use.
type Document struct {
	// text is all that is fixed; each hole is at a place in it.
	text  []byte
	holes []hole
}

// hole is where something comes from the delivery.
type hole struct {
	// at is the place in the document's text, bytes.
	at   int
	kind kind
	// name is the variable's; fallback, escaped, stands in for one that is missing or empty.
	name     string
	fallback string
}

// Values are what one delivery puts into the holes.
type Values struct {
	Variables map[string]string
	// ID is the delivery's as text, from AppendID.
	ID []byte
	// TTL is what is left of the delivery's time, seconds.
	TTL int64
}

// Append appends the document for one delivery to dst. It allocates only to grow dst.
func (d *Document) Append(dst []byte, v Values) []byte {
	from := 0
	for i := range d.holes {
		h := &d.holes[i]
		dst = append(dst, d.text[from:h.at]...)
		from = h.at
		switch h.kind {
		case id:
			dst = append(dst, v.ID...)
		case ttl:
			dst = strconv.AppendInt(dst, v.TTL, 10)
		default: // a variable
			if value := v.Variables[h.name]; value != "" {
				dst = appendEscaped(dst, value)
			} else {
				dst = append(dst, h.fallback...)
			}
		}
	}
	return append(dst, d.text[from:]...)
}

// Documents are a message's for one platform: at most one for each of its locales and variants, made when a device first
// needs it. It is safe for concurrent use, and takes no lock.
type Documents struct {
	variants int
	made     []atomic.Pointer[Document]
}

// NewDocuments has room for variants of each of m's locales.
func NewDocuments(m *message.Compiled, variants int) *Documents {
	return &Documents{variants, make([]atomic.Pointer[Document], m.Locales()*variants)}
}

// At is the document for a locale's place and a variant, which is below variants; write makes it when there is none yet.
func (d *Documents) At(place, variant int, write func(*Object)) *Document {
	slot := &d.made[place*d.variants+variant]
	if made := slot.Load(); made != nil {
		return made
	}
	var o Object
	write(&o)
	slot.CompareAndSwap(nil, o.Document())
	return slot.Load()
}
