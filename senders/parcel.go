package senders

import (
	"slices"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// parcel is the room that a decoded delivery takes, used again for the next one: proto.Unmarshal makes every part of a
// delivery anew, a dozen allocations, which is a large part of what a push costs.
type parcel struct {
	content   pb.Delivery
	target    pb.Target
	apns      pb.ApnsTarget
	fcm       pb.FcmTarget
	webpush   pb.WebPushTarget
	isApns    pb.Target_Apns
	isFcm     pb.Target_Fcm
	isWebpush pb.Target_Webpush
	variables map[string]string
	// inline is the delivery's own message as it lies in the record, or nil: see inlineMessages.
	inline []byte
}

// empty makes it good for another delivery. It also lets go of the record, which lies in a whole fetch of others.
func (p *parcel) empty() {
	clear(p.variables)
	*p = parcel{variables: p.variables}
}

// decode reads a delivery's record into an empty parcel. The delivery refers to value and to the parcel: both must be left alone for as long as
// it is used. A message of its own stays as it lies, in p.inline: it is likely to be known already. What decode does not know as such, an unknown field, one of another type, a part that comes twice, is proto's to
// read: then the delivery is one of its own.
func (p *parcel) decode(value []byte) (*pb.Delivery, error) {
	if p.read(value) {
		return &p.content, nil
	}
	d := &pb.Delivery{}
	p.inline = nil
	return d, proto.Unmarshal(value, d)
}

// read says whether it could read all of a delivery.
func (p *parcel) read(b []byte) bool {
	d := &p.content
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || !setNumber(d, field, v) {
				return false
			}
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || !p.setBytes(field, v) {
				return false
			}
			b = b[n:]
		default:
			return false
		}
	}
	return true
}

// The fields of belfry.v1.Delivery: schemas/belfry/v1/delivery.proto.
func setNumber(d *pb.Delivery, field protowire.Number, v uint64) bool {
	switch field {
	case 5:
		d.Class = pb.Class(int32(v))
	case 10:
		d.CreatedAt = int64(v)
	case 11:
		d.ExpiresAt = int64(v)
	case 12:
		d.RegisteredAt = int64(v)
	case 13:
		d.Attempt = uint32(v)
	case 14:
		d.DueAt = int64(v)
	case 16:
		d.FirstAttemptAt = int64(v)
	case 20:
		d.Parked = protowire.DecodeBool(v)
	case 22:
		d.Asked = protowire.DecodeBool(v)
	case 23:
		d.EarlyAt = int64(v)
	default:
		return false
	}
	return true
}

func (p *parcel) setBytes(field protowire.Number, v []byte) bool {
	d := &p.content
	switch field {
	case 1:
		d.Id = slices.Clip(v)
		return true
	case 2:
		return setText(&d.App, v)
	case 3:
		return setText(&d.Run, v)
	case 4:
		return setText(&d.Device, v)
	case 6:
		return p.setTarget(v)
	case 7:
		return setText(&d.Locale, v)
	case 8:
		return p.setVariable(v)
	case 9:
		if p.inline != nil {
			return false // a part that comes twice is merged
		}
		p.inline = v
		return true
	case 15:
		return setText(&d.LastCode, v)
	case 21:
		return setText(&d.Replay, v)
	}
	return false
}

// setText refers to v. A protobuf string that is not UTF-8 is proto's to refuse.
func setText(to *string, v []byte) bool {
	*to = unsafe.String(unsafe.SliceData(v), len(v)) // v is a record's value, which nobody changes
	return utf8.Valid(v)
}

// setVariable reads an entry of the map: its key is field 1, its value 2, and either is empty when it is left out.
func (p *parcel) setVariable(b []byte) bool {
	var entry [2]string
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType || field < 1 || field > 2 {
			return false
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 || !setText(&entry[field-1], v) {
			return false
		}
		b = b[n+m:]
	}
	if p.variables == nil {
		p.variables = make(map[string]string, 8)
	}
	p.variables[entry[0]] = entry[1]
	p.content.Variables = p.variables
	return true
}

// setTarget reads a target of one kind that comes once.
func (p *parcel) setTarget(b []byte) bool {
	field, kind, n := protowire.ConsumeTag(b)
	if n < 0 || kind != protowire.BytesType || p.content.Target != nil {
		return false
	}
	v, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || n+m != len(b) {
		return false
	}
	p.content.Target = &p.target
	switch field {
	case 1:
		p.isApns.Apns, p.target.Kind = &p.apns, &p.isApns
	case 2:
		p.isFcm.Fcm, p.target.Kind = &p.fcm, &p.isFcm
	case 3:
		p.isWebpush.Webpush, p.target.Kind = &p.webpush, &p.isWebpush
	default:
		return false
	}
	for len(v) > 0 {
		if v = p.targetField(field, v); v == nil {
			return false
		}
	}
	return true
}

// targetField reads one field of a target of some kind and returns what follows it, or nil when it cannot.
func (p *parcel) targetField(of protowire.Number, b []byte) []byte {
	field, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil
	}
	b = b[n:]
	if of == 1 && field == 2 && kind == protowire.VarintType {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil
		}
		p.apns.Environment = pb.Environment(int32(v))
		return b[n:]
	}
	v, n := protowire.ConsumeBytes(b)
	if n < 0 || kind != protowire.BytesType || !p.setTargetBytes(of, field, v) {
		return nil
	}
	return b[n:]
}

func (p *parcel) setTargetBytes(of, field protowire.Number, v []byte) bool {
	switch [2]protowire.Number{of, field} {
	case [2]protowire.Number{1, 1}:
		p.apns.Token = slices.Clip(v)
	case [2]protowire.Number{1, 3}:
		return setText(&p.apns.Topic, v)
	case [2]protowire.Number{2, 1}:
		return setText(&p.fcm.Token, v)
	case [2]protowire.Number{2, 2}:
		return setText(&p.fcm.Fid, v)
	case [2]protowire.Number{3, 1}:
		return setText(&p.webpush.Endpoint, v)
	case [2]protowire.Number{3, 2}:
		p.webpush.P256Dh = slices.Clip(v)
	case [2]protowire.Number{3, 3}:
		p.webpush.Auth = slices.Clip(v)
	default:
		return false
	}
	return true
}
