package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// tail follows the bulk send topics and knows when each delivery was written there.
type tail struct {
	client *kgo.Client
	done   sync.WaitGroup

	mu      sync.Mutex // guards written
	written map[simulator.ID]time.Time
}

func newTail(k *stream.Kafka) (*tail, error) {
	var topics []string
	for _, p := range schemas.Platforms {
		topics = append(topics, k.Topic(schemas.TopicSend(p, pb.Class_CLASS_BULK)))
	}
	client, err := k.Client(
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	t := &tail{client: client, written: map[simulator.ID]time.Time{}}
	t.done.Go(t.follow)
	return t, nil
}

// follow reads until the client is closed. A broker's trouble is over or shows as a delivery that wait does not find.
func (t *tail) follow() {
	for {
		fetches := t.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		t.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			var d pb.Delivery
			if proto.Unmarshal(r.Value, &d) == nil && len(d.Id) == len(simulator.ID{}) {
				t.written[simulator.ID(d.Id)] = r.Timestamp
			}
		})
		t.mu.Unlock()
	}
}

func (t *tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.written)
}

// wait is when each delivery was written, once all are known.
func (t *tail) wait(ctx context.Context, ids []simulator.ID) ([]time.Time, error) {
	written := make([]time.Time, len(ids))
	for began := time.Now(); ; {
		missing := t.fill(ids, written)
		switch {
		case missing == 0:
			return written, nil
		case time.Since(began) > lostAfter:
			return nil, fmt.Errorf("%d of %d deliveries were not found on their send topics within %v", missing, len(ids), lostAfter)
		case !pause(ctx, lookEvery):
			return nil, ctx.Err()
		}
	}
}

func (t *tail) fill(ids []simulator.ID, written []time.Time) (missing int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, id := range ids {
		at, ok := t.written[id]
		if !ok {
			missing++
		}
		written[i] = at
	}
	return missing
}

// close ends the reading.
func (t *tail) close() {
	t.client.Close()
	t.done.Wait()
}
