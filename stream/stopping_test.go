package stream_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestWhatComesWhileItStopsIsNotBegun (I3): a member that stops waits for what it has in flight. Another leaves meanwhile, so
// the group gives it one more partition. It must leave that alone, for what it began there it would not commit.
func TestWhatComesWhileItStopsIsNotBegun(t *testing.T) {
	for range 5 {
		if partitionComesWhileStopping(t) {
			return
		}
	}
	t.Fatal("in five attempts, the partition never came before the member had stopped")
}

// partitionComesWhileStopping is one attempt. It is false if the member had stopped before it got the partition.
func partitionComesWhileStopping(t *testing.T) bool {
	k, _ := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 1})
	adm := kadm.NewClient(streamtest.Client(t, k))
	pass := func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	}
	var began, stopping atomic.Bool
	var late atomic.Int64
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	leave := start(t, k, "leaver", pass)
	stop := start(t, k, "stopper", func(ctx context.Context, tasks []*stream.Task) {
		if stopping.Load() {
			late.Add(int64(len(tasks)))
		}
		began.Store(true)
		<-held
		pass(ctx, tasks)
	})
	t.Cleanup(release) // before the stopper's, which waits for what it holds
	waitFor(t, func() bool { return owned(t, adm, k, "leaver") == 1 && owned(t, adm, k, "stopper") == 1 })
	const n = 40
	fill(t, k, "in", n/2)
	waitFor(t, began.Load)
	stopping.Store(true)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	leave()
	streamtest.Produce(t, k, numbered("in", n/2, n)...)
	came := false
	waitFor(t, func() bool {
		select {
		case <-stopped:
			return true
		default:
			came = owned(t, adm, k, "stopper") == 2
			return came
		}
	})
	if came {
		time.Sleep(500 * time.Millisecond) // long enough to fetch and begin what lies there, if it would
	}
	release()
	<-stopped
	if late.Load() > 0 {
		t.Errorf("%d records were begun while it stopped", late.Load())
	}
	start(t, k, "next", pass)
	readOnce(t, k, "out", n)
	return came
}

// owned is how many partitions an instance has.
func owned(t *testing.T, adm *kadm.Client, k *stream.Kafka, instance string) (n int) {
	t.Helper()
	groups, err := adm.DescribeGroups(t.Context(), k.Prefix+"copy")
	if err != nil {
		return 0 // the group does not exist yet
	}
	for _, m := range groups[k.Prefix+"copy"].Members {
		if m.InstanceID == nil || *m.InstanceID != instance {
			continue
		}
		if c, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range c.Topics {
				n += len(topic.Partitions)
			}
		}
	}
	return n
}
