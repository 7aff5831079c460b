package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// checkBuilt is how often an applier looks whether Redis has lost the view.
	checkBuilt = time.Second
	// placePatience is how long it waits before the first look to have read where the registry was kept.
	placePatience = 2 * time.Second
)

const consumerName = "registry"

// CaughtUp returns when the view has all devices that belfry.devices holds now, whoever applies them. Its error is Kafka's, or that
// ctx is over.
func CaughtUp(ctx context.Context, k *stream.Kafka, client *kgo.Client) error {
	return stream.CaughtUp(ctx, k, client, consumerName, schemas.TopicDevices)
}

// Applier keeps the registry as belfry.devices says. Any number of processes may run one: they share the partitions.
type Applier struct {
	k        *stream.Kafka
	g        *Registry
	consumer *stream.Consumer
	outage   outage
	log      *slog.Logger
}

// NewApplier makes an applier. It starts with Run.
func NewApplier(k *stream.Kafka, g *Registry) *Applier {
	a := &Applier{k: k, g: g, outage: outage{log: k.Log}, log: k.Log}
	a.consumer = stream.NewConsumer(k, stream.Options{
		Name:   consumerName,
		Topics: []string{schemas.TopicDevices},
		// A Handle call applies all that waits in two round trips; more than this only takes memory.
		Records: 1024,
		Handle:  a.handle,
	})
	return a
}

// Run applies what comes until ctx is done. When Redis does not hold the view, because it is new or has lost its memory,
// it is rebuilt first. A Redis that is away is waited for: nothing is skipped.
func (a *Applier) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.consumer.Run(ctx) })
	place := NewPlace(a.k)
	group.Go(func() error { return place.Run(ctx) })
	group.Go(func() error { a.keepBuilt(ctx, &herald{place: place}); return nil })
	return group.Wait()
}

// handle makes one partition's changes, and ends their tasks when Redis has them.
func (a *Applier) handle(ctx context.Context, tasks []*stream.Task) {
	changes := make([]Change, 0, len(tasks))
	good := make([]*stream.Task, 0, len(tasks))
	for _, t := range tasks {
		c, ok, err := DecodeChange(t.Key, t.Value)
		switch {
		case err != nil:
			t.Done(t.DeadLetter(schemas.TopicDeadOf(schemas.TopicDevices), "undecodable", err.Error()))
		case !ok:
			t.Done()
		default:
			changes, good = append(changes, c), append(good, t)
		}
	}
	var moved []*pb.DeviceGone
	err := a.outage.inParts(ctx, changes, func(part []Change) error {
		gone, err := a.g.Apply(ctx, part)
		moved = append(moved, gone...)
		return err
	})
	if err != nil {
		stream.Release(good)
		return
	}
	for i, t := range good {
		if i == 0 {
			// With the first: so they are written no later than any of these is committed.
			t.Done(goneOutputs(moved)...)
			continue
		}
		t.Done()
	}
}

// goneOutputs make it known that devices have lost their targets.
func goneOutputs(moved []*pb.DeviceGone) []stream.Output {
	outs := make([]stream.Output, 0, len(moved))
	for _, g := range moved {
		value, err := proto.Marshal(&pb.DeviceRecord{Kind: &pb.DeviceRecord_Gone{Gone: g}})
		if err != nil {
			panic("registry: encode a device's end: " + err.Error()) // its strings came out of decoded records
		}
		outs = append(outs, stream.Output{Topic: schemas.TopicDevices, Key: schemas.DeviceGoneKey(g.App, g.Id), Value: value})
	}
	return outs
}

// keepBuilt rebuilds the view whenever it is not there, and says where it is. Of several processes that see it, one rebuilds.
func (a *Applier) keepBuilt(ctx context.Context, herald *herald) {
	select {
	case <-ctx.Done():
	case <-herald.place.Ready():
	case <-time.After(placePatience): // a Kafka that is away keeps nobody from looking
	}
	for ctx.Err() == nil {
		var built bool
		err := a.outage.retry(ctx, func() (err error) {
			built, err = a.g.Built(ctx)
			return err
		})
		if err == nil && !built {
			a.rebuild(ctx)
		}
		herald.look(ctx, a)
		select {
		case <-ctx.Done():
		case <-time.After(checkBuilt):
		}
	}
}

func (a *Applier) rebuild(ctx context.Context) {
	began := time.Now()
	var records int64
	err := Rebuild(ctx, a.k, a.g, func(done, _ int64) { records = done })
	switch {
	case err == nil:
		a.log.Info("the registry is rebuilt from Kafka, for it was not in Redis", "records", records, "took", time.Since(began))
	case ctx.Err() == nil && !errors.Is(err, ErrRebuilding):
		a.log.Warn("the registry is not in Redis and cannot be rebuilt; trying again", "err", err)
	}
}
