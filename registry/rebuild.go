package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// ErrRebuilding says that somebody else rebuilds the registry already.
var ErrRebuilding = errors.New("the registry is being rebuilt already; wait for that to end")

const (
	// lockTime is how long a rebuild that was killed keeps others out.
	lockTime = 30 * time.Second
	// builders apply at the same time, each its own partitions.
	builders = 4
)

// Rebuild makes the view in Redis anew: it removes what is there, and applies belfry.devices from its start to what was
// its end when called. progress, if any, is told of the records applied and how many there are at most; compaction
// leaves fewer. Until it is over reads fail with ErrNotBuilt and appliers wait, in all processes. Then it says on belfry.control
// where the registry is: see Place.
func Rebuild(ctx context.Context, k *stream.Kafka, g *Registry, progress func(done, total int64)) error {
	build := rand.Text()
	if err := rebuild(ctx, k, g, build, progress); err != nil {
		return err
	}
	return g.tell(ctx, k, build)
}

func rebuild(ctx context.Context, k *stream.Kafka, g *Registry, build string, progress func(done, total int64)) (err error) {
	lock := lock{g: g, name: build}
	if err := lock.take(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { lock.keep(ctx, cancel) })
	defer func() {
		cancel(nil)
		keeper.Wait()
		err = errors.Join(err, lock.free(context.WithoutCancel(ctx)))
	}()
	// Kafka is asked first: without it the old view stays.
	total, err := deviceRecords(ctx, k)
	if err != nil {
		return fmt.Errorf("find the end of %s: %w", k.Topic(schemas.TopicDevices), err)
	}
	if err := g.clear(ctx); err != nil {
		return fmt.Errorf("remove the old registry from Redis: %w", err)
	}
	b := builder{g: g, outage: outage{log: k.Log}, total: total, progress: progress}
	if err := b.run(ctx, k); err != nil {
		return fmt.Errorf("rebuild the registry: %w", err)
	}
	return lock.publish(ctx)
}

// deviceRecords is how many records belfry.devices holds at most.
func deviceRecords(ctx context.Context, k *stream.Kafka) (total int64, err error) {
	client, err := k.Client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin, topic := kadm.NewClient(client), k.Topic(schemas.TopicDevices)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		return 0, err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return 0, err
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
			total += end.Offset - start.Offset
		}
	})
	return total, nil
}

// builder is one rebuild's way from Kafka to Redis.
type builder struct {
	g      *Registry
	outage outage

	total    int64
	done     atomic.Int64
	mu       sync.Mutex // guards calls of progress, and moved
	progress func(done, total int64)
	moved    []Change
}

// run reads the topic once. Changes of one partition go to one worker, so that they stay in order.
func (b *builder) run(ctx context.Context, k *stream.Kafka) error {
	workers, working := errgroup.WithContext(ctx)
	var queues [builders]chan Change
	for i := range queues {
		queue := make(chan Change, readBatch)
		queues[i] = queue
		workers.Go(func() error { return b.work(working, queue) })
	}
	view := stream.NewView(k, schemas.TopicDevices, func(r stream.ViewRecord) {
		c, ok, err := DecodeChange(r.Key, r.Value)
		if err != nil || !ok {
			b.done.Add(1) // the applier puts what cannot be read to the dead letters
			return
		}
		select {
		case queues[r.Partition%builders] <- c:
		case <-working.Done():
		}
	})
	reading, stop := context.WithCancel(working)
	var reader errgroup.Group
	reader.Go(func() error { return view.Run(reading) })
	select {
	case <-view.Ready():
	case <-working.Done():
	}
	stop()
	err := reader.Wait()
	for _, q := range queues {
		close(q)
	}
	err = errors.Join(err, workers.Wait())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return b.move(ctx)
}

// work applies a queue's changes, as many at a time as wait.
func (b *builder) work(ctx context.Context, queue <-chan Change) error {
	batch := make([]Change, 0, readBatch)
	for c := range queue {
		batch = append(batch[:0], c)
		for more := true; more && len(batch) < readBatch; {
			select {
			case c, more = <-queue:
				if more {
					batch = append(batch, c)
				}
			default:
				more = false
			}
		}
		err := b.outage.inParts(ctx, batch, func(part []Change) error {
			moved, err := b.g.apply(ctx, part, true)
			b.lost(moved)
			return err
		})
		if err != nil {
			return err
		}
		b.told(int64(len(batch)))
	}
	return nil
}

// lost keeps the devices that have lost their targets until all partitions are read: they lie on others.
func (b *builder) lost(moved []*pb.DeviceGone) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range moved {
		b.moved = append(b.moved, Change{app: g.App, id: g.Id, gone: g})
	}
}

// move removes them.
func (b *builder) move(ctx context.Context) error {
	for batch := range slices.Chunk(b.moved, readBatch) {
		err := b.outage.inParts(ctx, batch, func(part []Change) error {
			_, err := b.g.apply(ctx, part, true)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) told(n int64) {
	done := b.done.Add(n)
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress(done, b.total)
}

// clear takes the view away from its readers, and then removes every device: nobody may take what is left meanwhile for
// all there is.
func (g *Registry) clear(ctx context.Context) error {
	if err := g.redis.Del(ctx, g.builtKey()).Err(); err != nil {
		return err
	}
	return g.redis.remove(ctx, g.devicesKey())
}
