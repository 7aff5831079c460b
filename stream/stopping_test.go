package stream_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// TestWhatIsDoneAfterARefusedCommitIsCommittedToo (I3): a commit is refused, more is done, and the member stops. It commits both.
func TestWhatIsDoneAfterARefusedCommitIsCommittedToo(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	var refused atomic.Int64
	var lifted atomic.Bool
	broker.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if lifted.Load() {
			return nil, nil, false
		}
		refused.Add(1)
		return stream.Refuse(r, kerr.RebalanceInProgress), nil, true
	})
	var did handled
	handle := func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			did.note(task)
			task.Done(copyOf(task))
		}
	}
	stop := start(t, k, "first", handle)
	fill(t, k, "in", 20)
	waitFor(t, func() bool { return refused.Load() > 5 }) // its pauses are long by now
	streamtest.Produce(t, k, numbered("in", 20, 40)...)
	waitFor(t, func() bool { return did.records() == 40 })
	lifted.Store(true)
	stop()
	start(t, k, "second", handle)
	readOnce(t, k, "out", 40)
	did.atMost(t, 1)
}

// A member is told to stop while Kafka does not answer its commit. It has 30 s before whoever runs it kills it, as Kubernetes does
// by itself: it takes its tasks 5 s, the last commit 5 s and the leaving 2 s, and the commit before it nothing on top.
func TestAStopDoesNotWaitForACommitThatHangs(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, broker := inBubble(t)
				hung, answer := make(chan struct{}), make(chan struct{})
				t.Cleanup(func() { close(answer) })
				stop := start(t, k, "stopper", func(_ context.Context, tasks []*stream.Task) {
					for _, task := range tasks[1:] { // the first of them never ends
						task.Done(copyOf(task))
					}
				})
				fill(t, k, "in", 10)
				broker.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
					close(hung)
					<-answer
					return nil, nil, false
				})
				<-hung
				began := time.Now()
				stop()
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it took %v to stop", took)
				}
			})
		})
	}
}

// inBubble is a Kafka under a bubble's clock, with topics in and out.
func inBubble(t *testing.T) (*stream.Kafka, *kfake.Cluster) {
	network := &kfake.VirtualNetwork{}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(network.Listen), kfake.Ports(9092), kfake.SeedTopics(1, "in", "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return &stream.Kafka{Brokers: broker.ListenAddrs(), Log: streamtest.Log(t), Dial: network.DialContext}, broker
}

// TestWhoLeavesARebalanceIsNotWaitedFor (I5): a member stops while the group shares out its partitions for it. The embedded
// Kafka then counts one member too few among those that come to share them out again (kfake, handleLeave), and a real one may
// wait for an answer of somebody who is gone: nobody waits longer than a rebalance may take.
func TestWhoLeavesARebalanceIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a rebalance may take 10 s")
	}
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 1})
	adm := kadm.NewClient(streamtest.Client(t, k))
	start(t, k, "stayer", copyLater)
	waitFor(t, func() bool { return owned(t, adm, k, "stayer") == 2 })
	syncs, left := make(chan string, 100), make(chan struct{})
	broker.ControlKey(int16(kmsg.SyncGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		instance := *r.(*kmsg.SyncGroupRequest).InstanceID
		syncs <- instance
		if instance == "stayer" {
			broker.SleepControl(func() { <-left }) // it leads, and the leaver waits for its shares
		}
		return nil, nil, false
	})
	leave := start(t, k, "leaver", copyLater)
	for waiting := map[string]bool{}; len(waiting) < 2; waiting[<-syncs] = true {
	}
	leave()
	close(left)
	waitFor(t, func() bool {
		groups, err := adm.DescribeGroups(t.Context(), k.Prefix+"copy")
		g := groups[k.Prefix+"copy"]
		return err == nil && g.State == "Stable" && len(g.Members) == 1 && owned(t, adm, k, "stayer") == 2
	})
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

// TestOffsetsThatAreNotFinalAreToldOf: a member that had the partitions before has left a transaction that does not end. Who has
// them now waits for that, and says so; when it ends, all goes on.
func TestOffsetsThatAreNotFinalAreToldOf(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a transaction may take 10 s")
	}
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 20)
	var over atomic.Bool
	broker.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if over.Load() {
			return nil, nil, false
		}
		req, resp := r.(*kmsg.OffsetFetchRequest), r.ResponseKind().(*kmsg.OffsetFetchResponse)
		for _, g := range req.Groups {
			group := kmsg.OffsetFetchResponseGroup{Group: g.Group}
			for _, topic := range g.Topics {
				of := kmsg.OffsetFetchResponseGroupTopic{Topic: topic.Topic, TopicID: topic.TopicID}
				for _, n := range topic.Partitions {
					of.Partitions = append(of.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
						Partition: n, Offset: -1, LeaderEpoch: -1, ErrorCode: kerr.UnstableOffsetCommit.Code,
					})
				}
				group.Topics = append(group.Topics, of)
			}
			resp.Groups = append(resp.Groups, group)
		}
		return resp, nil, true
	})
	start(t, k, "a", copyLater)
	waitFor(t, func() bool {
		err := k.Health()
		return err != nil && strings.Contains(err.Error(), "wait for their committed offsets")
	})
	over.Store(true)
	readOnce(t, k, "out", 20)
	waitFor(t, func() bool { return k.Health() == nil })
}
