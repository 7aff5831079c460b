package fanout

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// expand ends a chunk with its deliveries, and returns how many they are. Devices whose destinations take no more wait, and
// are counted too: their part of the chunk is written again. Where all of them do the chunk is not ended, but keeps in mind
// what it waits for. When its partition goes away it is given back. outs is room for the deliveries that the caller lends, and
// gets back larger.
func (e *expander) expand(w *work, outs *[]stream.Output) (planned int64, waiting int) {
	c := e.campaigns.get(w.run)
	if c == nil || over(c.Campaign, e.now()) {
		w.task.Done(e.tell(w.chunk, 0, false))
		return 0, 0
	}
	recipe, err := c.recipe()
	if err != nil {
		// It compiled when it was launched, so by another release.
		w.task.Done(w.task.DeadLetter(schemas.TopicDead(e.platform), "uncompilable", err.Error()), e.tell(w.chunk, 0, false))
		return 0, 0
	}
	e.mu.Lock()
	destinations := e.destinations(c.App, e.now())
	e.mu.Unlock()
	only := w.rest()
	var x *expansion
	err = e.patience.try(w.ctx, "read the devices of a chunk", func() error {
		x = newExpansion(c.Campaign, recipe, e.platform, e.now())
		x.rest, x.waiting.of, x.waiting.taste, x.outs = only, destinations, w.taste, (*outs)[:0]
		err := e.devices(w.ctx, w.chunk, x)
		*outs = x.outs
		return err
	})
	if err != nil {
		w.task.Release()
		return 0, 0
	}
	planned, waiting, w.taste = int64(len(*outs)), len(x.waiting.ids), x.waiting.taste
	switch {
	case waiting == 0:
		*outs = append(*outs, e.tell(w.chunk, int(planned), false))
	case planned == 0:
		w.chunk.Waits = x.waiting.names
		return 0, waiting
	default:
		*outs = append(*outs, putOff(w, &x.waiting), e.tell(w.chunk, int(planned), true))
	}
	w.task.Done(*outs...)
	clear(*outs)
	return planned, waiting
}

// devices adds each device of a chunk to x.
func (e *expander) devices(ctx context.Context, c *pb.Chunk, x *expansion) error {
	if len(c.Devices) == 0 {
		return e.registry.Scan(ctx, c.App, e.platform, c.FirstShard, c.EndShard, x.recipe.wanted, func(r *registry.Row) error {
			return x.add(&r.Device, r.Target)
		})
	}
	// A list may name a device twice; a scan meets each once.
	found, err := e.registry.Devices(ctx, c.App, slices.Compact(slices.Sorted(slices.Values(c.Devices))))
	if err != nil {
		return err
	}
	for _, d := range found {
		if d.Target == nil {
			continue
		}
		target, err := proto.Marshal(d.Target)
		if err != nil {
			return fmt.Errorf("encode the target of device %s: %w", d.Id, err)
		}
		if err := x.add(d, target); err != nil {
			return err
		}
	}
	return nil
}
