package fanout

import (
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// waiting are those of a chunk's deliveries that wait for their destinations.
type waiting struct {
	// of are the app's destinations: nil when none is shut.
	of destinations
	// taste is how many may go all the same where it is doubtful whether they would.
	taste int
	// ids are what pb.Chunk.rest has, names the destinations that are waited for, sorted.
	ids   []uint64
	names []string
}

// add takes a delivery if its destination takes no more.
func (w *waiting) add(x *expansion, d *pb.Device, target []byte) (waits bool, err error) {
	var t pb.Target
	if x.platform != pb.Platform_PLATFORM_FCM { // whose has one name
		if err := proto.Unmarshal(target, &t); err != nil {
			return false, fmt.Errorf("decode the target of device %s: %w", d.Id, err)
		}
	}
	name := schemas.DestinationName(&t)
	switch is := w.of.at(name); {
	case is == open:
		return false, nil
	case is == doubtful && w.taste > 0:
		w.taste--
		return false, nil
	}
	if at, known := slices.BinarySearch(w.names, name); !known {
		w.names = slices.Insert(w.names, at, name)
	}
	w.ids = append(w.ids, restID(x.app, x.run, d.Id))
	return true, nil
}

// restID names a delivery in pb.Chunk.rest.
func restID(app, run, device string) uint64 {
	id := schemas.DeliveryID(app, run, device, 0)
	return binary.BigEndian.Uint64(id[8:])
}

// putOff is the record of what is left of a chunk.
func putOff(w *work, waiting *waiting) stream.Output {
	c := proto.CloneOf(w.chunk)
	slices.Sort(waiting.ids)
	c.Rest, c.Waits, c.Estimate = waiting.ids, waiting.names, uint32(len(waiting.ids))
	return written(w.task, c)
}

// again ends a chunk by writing it again, with what is known of it by now.
func again(w *work) {
	c := proto.CloneOf(w.chunk)
	c.Rest = w.rest()
	w.task.Done(written(w.task, c))
}

// rest is what the record has of that. In the queue it lies once, in the record; most have none, and are not decoded again.
func (w *work) rest() []uint64 {
	if !w.partial {
		return nil
	}
	var c pb.Chunk
	if err := proto.Unmarshal(w.task.Value, &c); err != nil {
		panic("fanout: decode chunk: " + err.Error()) // it has been decoded before
	}
	return c.Rest
}

// written is a chunk as a record behind the others of its partition.
func written(t *stream.Task, c *pb.Chunk) stream.Output {
	value, err := proto.Marshal(c)
	if err != nil {
		panic("fanout: encode chunk: " + err.Error()) // it came out of a record, and so can go into one
	}
	return stream.Output{Topic: t.Topic, Key: t.Key, Value: value}
}
