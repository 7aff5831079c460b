package fanout

import (
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// expansion makes one chunk's deliveries. They are written by hand, straight into memory that they share: what all of a
// run's have in common is encoded once, and a target is copied as the registry holds it. delivery_test.go holds this
// against protobuf's own encoder.
type expansion struct {
	recipe   *recipe
	app, run string
	platform pb.Platform
	topic    string
	// account is the encoded fields app and run; times are created_at and expires_at.
	account, times []byte
	// rest are the deliveries that are meant, by pb.Chunk.rest: all when it is empty.
	rest    []uint64
	waiting waiting
	outs    []stream.Output
	// arena holds keys and deliveries one after the other: one allocation for many of them.
	arena []byte
}

const (
	// arenaBytes is how much of the arena is allocated at a time, and arenaRoom what most deliveries take. One that
	// takes more moves to an arena of its own, with what lies before it.
	arenaBytes = 256 << 10
	arenaRoom  = 2 << 10
)

// Field numbers of pb.Delivery.
const (
	fieldID           = 1
	fieldApp          = 2
	fieldRun          = 3
	fieldDevice       = 4
	fieldClass        = 5
	fieldTarget       = 6
	fieldLocale       = 7
	fieldVariables    = 8
	fieldCreatedAt    = 10
	fieldExpiresAt    = 11
	fieldRegisteredAt = 12
)

func newExpansion(c *pb.Campaign, r *recipe, p pb.Platform, now time.Time) *expansion {
	return &expansion{
		recipe: r, app: c.App, run: c.Id, platform: p, topic: schemas.TopicSend(p, pb.Class_CLASS_BULK),
		account: schemas.AppendBytes(schemas.AppendBytes(nil, fieldApp, c.App), fieldRun, c.Id),
		times:   schemas.AppendNumber(schemas.AppendNumber(nil, fieldCreatedAt, uint64(now.UnixMilli())), fieldExpiresAt, uint64(c.ExpiresAt)),
	}
}

// add makes a device's delivery, if the audience means it. target is the device's, encoded, or nil.
func (x *expansion) add(d *pb.Device, target []byte) error {
	// A listed device may have moved to another platform, whose chunks were cut without it.
	if d.Platform != x.platform || target == nil {
		return nil
	}
	if len(x.rest) > 0 {
		if _, meant := slices.BinarySearch(x.rest, restID(x.app, x.run, d.Id)); !meant {
			return nil
		}
	}
	if x.recipe.filter != nil {
		if meant, err := x.recipe.filter.Match(d); err != nil || !meant {
			return err
		}
	}
	if len(x.waiting.of) > 0 {
		if waits, err := x.waiting.add(x, d, target); waits || err != nil {
			return err
		}
	}
	b := x.arena
	if cap(b)-len(b) < arenaRoom {
		b = make([]byte, 0, arenaBytes)
	}
	from := len(b)
	b = append(b, x.app...)
	b = append(b, '/')
	b = append(b, d.Id...)
	key := len(b)
	b = x.append(b, d, target)
	x.arena = b
	x.outs = append(x.outs, stream.Output{Topic: x.topic, Key: b[from:key:key], Value: b[key:len(b):len(b)]})
	return nil
}

// append writes a device's pb.Delivery, its fields in the order of their numbers.
func (x *expansion) append(b []byte, d *pb.Device, target []byte) []byte {
	id := schemas.DeliveryID(x.app, x.run, d.Id, 0)
	b = append(b, fieldID<<3|byte(protowire.BytesType), byte(len(id)))
	b = append(b, id[:]...)
	b = append(b, x.account...)
	b = schemas.AppendBytes(b, fieldDevice, d.Id)
	b = append(b, fieldClass<<3|byte(protowire.VarintType), byte(pb.Class_CLASS_BULK))
	b = append(b, fieldTarget<<3|byte(protowire.BytesType))
	b = protowire.AppendBytes(b, target)
	b = schemas.AppendBytes(b, fieldLocale, d.Locale)
	for i := range x.recipe.variables {
		b = x.recipe.variables[i].append(b, d)
	}
	b = append(b, x.times...)
	return schemas.AppendNumber(b, fieldRegisteredAt, uint64(d.RegisteredAt))
}

// variable is one that the message names: an entry of a delivery's map.
type variable struct {
	name string
	// key is the entry's first field, the name, encoded, with the tag of the second.
	key []byte
}

func newVariable(name string) variable {
	return variable{name, protowire.AppendTag(schemas.AppendBytes(nil, 1, name), 2, protowire.BytesType)}
}

// append appends the entry, if the device has the variable.
func (v *variable) append(b []byte, d *pb.Device) []byte {
	value := message.Variable(v.name, d)
	if value == "" {
		return b
	}
	b = append(b, fieldVariables<<3|byte(protowire.BytesType))
	b = protowire.AppendVarint(b, uint64(len(v.key)+protowire.SizeBytes(len(value))))
	b = append(b, v.key...)
	return protowire.AppendString(b, value)
}
