package stream_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestViewCatchesUpWithTransactions: a view has what was committed when it was asked, and never what was aborted, though
// markers and aborted records take offsets of their own.
func TestViewCatchesUpWithTransactions(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "state", Partitions: 2, Compact: true})
	var mu sync.Mutex
	state := map[string]string{}
	v := stream.NewView(k, "state", func(r stream.ViewRecord) {
		mu.Lock()
		defer mu.Unlock()
		if r.Value == nil {
			delete(state, string(r.Key))
			return
		}
		state[string(r.Key)] = string(r.Value)
	})
	writer := streamtest.Client(t, k, kgo.TransactionalID(k.Prefix+"writer"))
	write := func(end kgo.TransactionEndTry, records ...*kgo.Record) {
		t.Helper()
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			r.Topic = k.Topic("state")
		}
		if err := writer.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := writer.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want map[string]string) {
		t.Helper()
		if err := v.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(state) != len(want) {
			t.Fatalf("the view has %v, not %v", state, want)
		}
		for key, value := range want {
			if state[key] != value {
				t.Fatalf("the view has %v, not %v", state, want)
			}
		}
	}
	streamtest.Run(t, v.Run)
	expect(nil)
	<-v.Ready()
	write(kgo.TryCommit, &kgo.Record{Key: []byte("a"), Value: []byte("1")}, &kgo.Record{Key: []byte("b"), Value: []byte("1")})
	expect(map[string]string{"a": "1", "b": "1"})
	write(kgo.TryAbort, &kgo.Record{Key: []byte("a"), Value: []byte("never")})
	expect(map[string]string{"a": "1", "b": "1"})
	write(kgo.TryCommit, &kgo.Record{Key: []byte("a"), Value: []byte("2")}, &kgo.Record{Key: []byte("b")})
	expect(map[string]string{"a": "2"})
}

func TestCatchUpHasAWayOut(t *testing.T) {
	k := &stream.Kafka{Brokers: []string{"127.0.0.1:1"}, Prefix: "t.", Instance: "a", Log: streamtest.Log(t)}
	v := stream.NewView(k, "state", func(stream.ViewRecord) {})
	streamtest.Run(t, v.Run)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.CatchUp(ctx); err == nil {
		t.Fatal("caught up with a Kafka that is not there")
	}
}

// TestTopicPlan: what is missing is created, what differs is told, and nothing is done twice.
func TestTopicPlan(t *testing.T) {
	k := streamtest.Kafka(t,
		streamtest.Topic{Name: schemas.TopicDevices, Partitions: 3, Compact: true},
		streamtest.Topic{Name: schemas.TopicEvents, Partitions: 5},
		streamtest.Topic{Name: schemas.TopicLanes, Partitions: 1},
	)
	kinds := func(changes []stream.TopicChange) map[string]int {
		n := map[string]int{}
		for _, c := range changes {
			n[c.Kind]++
		}
		return n
	}
	changes, err := stream.PlanTopics(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	got := kinds(changes)
	if got[stream.Conflict] != 1 || got[stream.AddPartitions] != 1 || got[stream.SetConfig] != 1 ||
		got[stream.CreateTopic] != len(schemas.Plan())-3 {
		t.Fatalf("the plan has %v", got)
	}
	done, err := stream.ApplyTopics(t.Context(), k)
	if err == nil {
		t.Error("devices have too few partitions, and nobody says so")
	}
	if len(done) != len(changes)-1 {
		t.Errorf("%d changes of %d were made", len(done), len(changes)-1)
	}
	if err := stream.WaitForTopics(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if changes, err = stream.PlanTopics(t.Context(), k); err != nil || len(changes) != 1 || changes[0].Kind != stream.Conflict {
		t.Fatalf("after apply the plan still has %v, %v", changes, err)
	}
}

// TestDevicePartition: every client puts what a provider said of a device beside its registration.
func TestDevicePartition(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: schemas.TopicDevices, Partitions: 7, Compact: true})
	client := streamtest.Client(t, k)
	for _, id := range []string{"a", "bb", "c-c", "d.d"} {
		topic := k.Topic(schemas.TopicDevices)
		registered := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: schemas.DeviceKey("app", id), Value: []byte("x")})
		gone := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: schemas.DeviceGoneKey("app", id), Value: []byte("x")})
		r, err := registered.First()
		g, err2 := gone.First()
		if err != nil || err2 != nil || r.Partition != g.Partition {
			t.Fatalf("device %s: %v %v %v %v", id, r, g, err, err2)
		}
	}
}

// endsWhenAsked is a context that ends right after it has been asked once, when it is armed, whether it has.
type endsWhenAsked struct {
	context.Context
	end   context.CancelFunc
	armed atomic.Bool
}

func (c *endsWhenAsked) Err() error {
	err := c.Context.Err()
	if err == nil && c.armed.CompareAndSwap(true, false) {
		c.end()
		time.Sleep(50 * time.Millisecond) // until those that follow from it have ended
	}
	return err
}

// TestAViewThatIsStoppedHasNotFailed: whenever it is.
func TestAViewThatIsStoppedHasNotFailed(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "state", Partitions: 1, Compact: true})
	applied := make(chan struct{}, 1)
	v := stream.NewView(k, "state", func(stream.ViewRecord) { applied <- struct{}{} })
	ctx := &endsWhenAsked{}
	ctx.Context, ctx.end = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	<-v.Ready()
	ctx.armed.Store(true)
	streamtest.Produce(t, k, &kgo.Record{Topic: "state", Key: []byte("k"), Value: []byte("v")})
	select {
	case <-applied:
	case <-ctx.Done():
	}
	ctx.end()
	if err := <-done; err != nil {
		t.Errorf("it says %v", err)
	}
}
