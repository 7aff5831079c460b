package registry

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Wanted says what Scan decodes of a device's lists, which take most of the time. All else it always decodes.
type Wanted struct {
	Tags       bool
	Attributes []string
}

// Row is a device as Scan meets it. It and all that it refers to are the scan's again when fn returns.
type Row struct {
	// Device lacks its target, and the tags and attributes that were not wanted.
	Device pb.Device
	// Target is the encoded pb.Target, nil where the device has none: who copies it need not know what is in it.
	Target []byte

	wanted Wanted
	slots  []slot // one for each wanted attribute
}

// slot is the memory of one attribute, so that decoding it allocates nothing.
type slot struct {
	value  pb.Value
	text   pb.Value_Text
	number pb.Value_Number
	flag   pb.Value_Flag
}

func newRow(w Wanted) *Row { return &Row{wanted: w, slots: make([]slot, len(w.Attributes))} }

// decode reads a stored record. Its strings stay where they are, in b.
func (r *Row) decode(b []byte) error {
	r.reset()
	if r.walk(b) {
		return nil
	}
	return r.unmarshal(b)
}

func (r *Row) reset() {
	d := &r.Device
	d.App, d.Id, d.User, d.Platform, d.Locale, d.AppVersion, d.TimeZone, d.RegisteredAt = "", "", "", 0, "", "", "", 0
	d.Tags, d.Target, r.Target = d.Tags[:0], nil, nil
	if len(d.Attributes) > 0 {
		clear(d.Attributes)
	}
}

// Tags on the wire (protobuf's: number and type) of pb.Device. All fit a byte.
const (
	tagApp          = 1<<3 | byte(protowire.BytesType)
	tagID           = 2<<3 | byte(protowire.BytesType)
	tagUser         = 3<<3 | byte(protowire.BytesType)
	tagPlatform     = 4<<3 | byte(protowire.VarintType)
	tagLocale       = 5<<3 | byte(protowire.BytesType)
	tagAppVersion   = 6<<3 | byte(protowire.BytesType)
	tagTimeZone     = 7<<3 | byte(protowire.BytesType)
	tagTag          = 8<<3 | byte(protowire.BytesType)
	tagAttribute    = 9<<3 | byte(protowire.BytesType)
	tagTarget       = 10<<3 | byte(protowire.BytesType)
	tagRegisteredAt = 11<<3 | byte(protowire.VarintType)
)

// walk reads what Belfry itself writes. It is false where it finds anything else: a field of a newer version, one twice,
// or bytes that are no record. Whoever asks gets protobuf's own opinion then.
func (r *Row) walk(b []byte) bool {
	for len(b) > 0 {
		tag := b[0]
		if tag == tagPlatform || tag == tagRegisteredAt {
			n, size := protowire.ConsumeVarint(b[1:])
			if size < 0 {
				return false
			}
			b = b[1+size:]
			if tag == tagPlatform {
				r.Device.Platform = pb.Platform(n)
			} else {
				r.Device.RegisteredAt = int64(n)
			}
			continue
		}
		v, rest, ok := cutField(b)
		if !ok || !r.take(tag, v) {
			return false
		}
		b = rest
	}
	return true
}

// cutField cuts off the field that b begins with, whose tag is one byte and whose value has a length.
func cutField(b []byte) (v, rest []byte, ok bool) {
	if len(b) >= 2 && b[1] < 0x80 && len(b) >= 2+int(b[1]) {
		end := 2 + int(b[1])
		return b[2:end], b[end:], true
	}
	v, n := protowire.ConsumeBytes(b[min(1, len(b)):])
	if n < 0 {
		return nil, nil, false
	}
	return v, b[1+n:], true
}

// take keeps one field that has a length.
func (r *Row) take(tag byte, v []byte) (ok bool) {
	d := &r.Device
	switch tag {
	case tagApp:
		d.App, ok = lend(v)
	case tagID:
		d.Id, ok = lend(v)
	case tagUser:
		d.User, ok = lend(v)
	case tagLocale:
		d.Locale, ok = lend(v)
	case tagAppVersion:
		d.AppVersion, ok = lend(v)
	case tagTimeZone:
		d.TimeZone, ok = lend(v)
	case tagTag:
		if !r.wanted.Tags {
			return true
		}
		var s string
		s, ok = lend(v)
		d.Tags = append(d.Tags, s)
	case tagAttribute:
		return len(r.slots) == 0 || r.attribute(v)
	case tagTarget:
		ok = r.Target == nil && isTarget(v)
		r.Target = v
	}
	return ok
}

// lend lends a field's bytes as a string.
func lend(v []byte) (string, bool) {
	return unsafe.String(unsafe.SliceData(v), len(v)), utf8.Valid(v)
}

// attribute reads an entry of the map, as protobuf writes them: a key, then a value.
func (r *Row) attribute(entry []byte) bool {
	if len(entry) == 0 || entry[0] != 1<<3|byte(protowire.BytesType) {
		return false
	}
	k, rest, ok := cutField(entry)
	if !ok || len(rest) == 0 || rest[0] != 2<<3|byte(protowire.BytesType) {
		return false
	}
	v, rest, ok := cutField(rest)
	if !ok || len(rest) > 0 {
		return false
	}
	name, ok := lend(k)
	if !ok {
		return false
	}
	i := slices.Index(r.wanted.Attributes, name)
	if i < 0 {
		return true
	}
	if r.Device.Attributes == nil {
		r.Device.Attributes = make(map[string]*pb.Value, len(r.slots))
	}
	r.Device.Attributes[r.wanted.Attributes[i]] = &r.slots[i].value
	return r.slots[i].set(v)
}

func (s *slot) set(v []byte) bool {
	s.value.Kind = nil
	if len(v) == 0 {
		return true
	}
	switch v[0] {
	case 1<<3 | byte(protowire.BytesType):
		t, rest, ok := cutField(v)
		if !ok || len(rest) > 0 {
			return false
		}
		s.text.Text, ok = lend(t)
		s.value.Kind = &s.text
		return ok
	case 2<<3 | byte(protowire.Fixed64Type):
		n, size := protowire.ConsumeFixed64(v[1:])
		s.number.Number = math.Float64frombits(n)
		s.value.Kind = &s.number
		return size == len(v)-1
	case 3<<3 | byte(protowire.VarintType):
		n, size := protowire.ConsumeVarint(v[1:])
		s.flag.Flag = n != 0
		s.value.Kind = &s.flag
		return size == len(v)-1
	}
	return false
}

// targetFields are what each kind of pb.Target has in its fields 1, 2, 3: (b)ytes, a (s)tring, a (v)arint.
var targetFields = [...]string{1: "bvs", 2: "ss", 3: "sbb"}

// isTarget says that v is a pb.Target of one kind and known fields, which may be copied as it is.
func isTarget(v []byte) bool {
	if len(v) == 0 || v[0]&7 != byte(protowire.BytesType) || int(v[0]>>3) >= len(targetFields) {
		return false
	}
	fields := targetFields[v[0]>>3]
	v, rest, ok := cutField(v)
	for ok && len(v) > 0 {
		number := int(v[0] >> 3)
		if number < 1 || number > len(fields) {
			return false
		}
		kind := fields[number-1]
		if kind == 'v' {
			_, n := protowire.ConsumeVarint(v[1:])
			if n < 0 || v[0]&7 != byte(protowire.VarintType) {
				return false
			}
			v = v[1+n:]
			continue
		}
		var s []byte
		ok = v[0]&7 == byte(protowire.BytesType)
		if ok {
			s, v, ok = cutField(v)
		}
		ok = ok && (kind == 'b' || utf8.Valid(s))
	}
	return ok && len(rest) == 0
}

// unmarshal reads a record by protobuf's own code, for what walk does not know.
func (r *Row) unmarshal(b []byte) error {
	if err := proto.Unmarshal(b, &r.Device); err != nil { // resets it first
		return fmt.Errorf("decode a device out of Redis: %w", err)
	}
	r.Target = nil
	if r.Device.Target == nil {
		return nil
	}
	target, err := proto.Marshal(r.Device.Target)
	if err != nil {
		return fmt.Errorf("encode the target of device %s: %w", r.Device.Id, err)
	}
	r.Target, r.Device.Target = target, nil
	if r.Target == nil {
		r.Target = []byte{} // there, and empty
	}
	return nil
}
