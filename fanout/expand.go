package fanout

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// expand ends a chunk with its deliveries, and returns how many they are. When its partition goes away it gives the chunk
// back instead.
func (e *expander) expand(w *work) int64 {
	c := e.campaigns.get(w.run)
	if c == nil || over(c.Campaign, e.now()) {
		w.task.Done(e.count(w.chunk, 0))
		return 0
	}
	recipe, err := c.recipe()
	if err != nil {
		// It compiled when it was launched, so by another release.
		w.task.Done(w.task.DeadLetter(schemas.TopicDead(e.platform), "uncompilable", err.Error()), e.count(w.chunk, 0))
		return 0
	}
	var outs []stream.Output
	err = e.patience.try(w.ctx, "read the devices of a chunk", func() error {
		room := min(w.chunk.Estimate, 2*chunkDevices)
		x := expansion{campaign: c.Campaign, recipe: recipe, platform: e.platform, now: e.now()}
		x.outs = make([]stream.Output, 0, room+1) // and the count
		x.seen = make(map[string]struct{}, room)
		err := e.devices(w.ctx, w.chunk, x.add)
		outs = x.outs
		return err
	})
	if err != nil {
		w.task.Release()
		return 0
	}
	planned := len(outs)
	w.task.Done(append(outs, e.count(w.chunk, planned))...)
	return int64(planned)
}

// devices calls fn with each device of a chunk.
func (e *expander) devices(ctx context.Context, c *pb.Chunk, fn func(*pb.Device) error) error {
	if len(c.Devices) == 0 {
		return e.registry.Scan(ctx, c.App, e.platform, c.FirstShard, c.EndShard, fn)
	}
	found, err := e.registry.Devices(ctx, c.App, c.Devices)
	if err != nil {
		return err
	}
	for _, d := range found {
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// expansion makes one chunk's deliveries.
type expansion struct {
	campaign *pb.Campaign
	recipe   *recipe
	platform pb.Platform
	now      time.Time
	outs     []stream.Output
	seen     map[string]struct{}
	// arena holds the encoded deliveries one after the other: one allocation for many of them.
	arena []byte
}

// arenaBytes is how much of the arena is allocated at a time.
const arenaBytes = 256 << 10

// add makes a device's delivery, if the audience means it.
func (x *expansion) add(d *pb.Device) error {
	// A listed device may have moved to another platform, whose chunks were cut without it.
	if d.Platform != x.platform || d.Target == nil {
		return nil
	}
	if _, twice := x.seen[d.Id]; twice {
		return nil
	}
	x.seen[d.Id] = struct{}{}
	if x.recipe.filter != nil {
		if meant, err := x.recipe.filter.Match(d); err != nil || !meant {
			return err
		}
	}
	id := schemas.DeliveryID(x.campaign.App, x.campaign.Id, d.Id, 0)
	return x.append(&pb.Delivery{
		Id: id[:], App: x.campaign.App, Run: x.campaign.Id, Device: d.Id,
		Class:        pb.Class_CLASS_BULK,
		Target:       d.Target,
		Locale:       d.Locale,
		Variables:    message.Variables(x.recipe.message.Names(), d, nil),
		CreatedAt:    x.now.UnixMilli(),
		ExpiresAt:    x.campaign.ExpiresAt,
		RegisteredAt: d.RegisteredAt,
	})
}

func (x *expansion) append(d *pb.Delivery) error {
	if size := proto.Size(d); cap(x.arena)-len(x.arena) < size {
		x.arena = make([]byte, 0, max(arenaBytes, size))
	}
	from := len(x.arena)
	arena, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(x.arena, d)
	if err != nil {
		return fmt.Errorf("encode the delivery to device %s: %w", d.Device, err)
	}
	x.arena = arena
	x.outs = append(x.outs, stream.Output{
		Topic: schemas.TopicSend(x.platform, pb.Class_CLASS_BULK),
		Key:   schemas.Key(d.App, d.Device),
		Value: arena[from:len(arena):len(arena)],
	})
	return nil
}
