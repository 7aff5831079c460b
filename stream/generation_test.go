package stream_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestCommitOfAStaleGeneration (I4): a member is thrown out of its group and is not told, as one that was frozen is not.
// Another has done its records when it comes to commit them: the broker refuses it, outputs and all.
func TestCommitOfAStaleGeneration(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 10)
	var tell atomic.Bool
	broker.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		id := req.(*kmsg.HeartbeatRequest).InstanceID
		return req.ResponseKind(), nil, id != nil && *id == "frozen" && !tell.Load() // all is well, it is told
	})
	var mu sync.Mutex
	var stale []*stream.Task
	start(t, k, "frozen", func(_ context.Context, tasks []*stream.Task) {
		mu.Lock()
		defer mu.Unlock()
		stale = append(stale, tasks...)
	})
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(stale) == 10
	})
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.LeaveGroup(t.Context(), kadm.LeaveGroup(k.Prefix+"copy").InstanceIDs("frozen")); err != nil {
		t.Fatal(err)
	}
	start(t, k, "next", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	waitFor(t, func() bool { return committed(t, adm, k) >= 10 })

	t.Cleanup(func() { tell.Store(true) }) // so that it gives up
	var aborts, ends atomic.Int64
	broker.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if req.(*kmsg.EndTxnRequest).Commit {
			ends.Add(1)
		} else {
			aborts.Add(1)
		}
		return nil, nil, false
	})
	for _, task := range stale {
		task.Done(stream.Output{Topic: "out", Key: task.Key, Value: []byte("stale")})
	}
	// That it aborts is how it shows that it was refused.
	waitFor(t, func() bool { return aborts.Load() > 0 || ends.Load() > 0 })
	if ends.Load() > 0 {
		t.Error("a member that owns its partition no more has committed")
	}
	readOnce(t, k, "out", 10)
}

// TestCommitOfAnEarlierAssignment (I4): a commit is under way, slowly, when its member loses its partitions and gets them
// again. What it then commits as the member that it is now would be the work of an assignment that is over, which is being
// done a second time.
func TestCommitOfAnEarlierAssignment(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 10)
	held, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if first.CompareAndSwap(false, true) {
			close(held)
			broker.SleepControl(func() { <-release })
		}
		return nil, nil, false
	})
	var handled atomic.Int64
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
		handled.Add(int64(len(tasks)))
	})
	<-held
	// It loses them by that answer, and joins again as the same member.
	broker.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.IllegalGeneration.Code
		return resp, nil, true
	})
	adm := kadm.NewClient(streamtest.Client(t, k))
	waitFor(t, func() bool { return handled.Load() == 20 })
	close(release)
	waitFor(t, func() bool { return committed(t, adm, k) >= 10 })
	stop()
	streamtest.Produce(t, k, &kgo.Record{Topic: "out", Key: []byte("last")})
	outputs := map[string]int{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		outputs[string(r.Key)]++
		return string(r.Key) != "last"
	}, "out")
	for key, n := range outputs {
		if n != 1 {
			t.Errorf("record %s has %d outputs", key, n)
		}
	}
	if len(outputs) != 11 {
		t.Errorf("%d records have outputs", len(outputs)-1)
	}
}

// TestMemberThatItsGroupForgot (I4): a member waits to join the next generation when its group forgets it, as one whose
// broker is killed does, and another does its records meanwhile. It is let in again, under a new id, and has its partition
// as if nothing had happened: what it has done of it by then is the work of an assignment that is over.
func TestMemberThatItsGroupForgot(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 10)
	var mu sync.Mutex
	var stale []*stream.Task
	start(t, k, "forgotten", func(_ context.Context, tasks []*stream.Task) {
		mu.Lock()
		defer mu.Unlock()
		if len(stale) < 10 {
			stale = append(stale, tasks...)
			return
		}
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(stale) == 10
	})
	held, release := make(chan struct{}), make(chan struct{})
	isIt := func(instance *string) bool { return instance != nil && *instance == "forgotten" }
	broker.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if !isIt(req.(*kmsg.HeartbeatRequest).InstanceID) {
			broker.KeepControl()
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.RebalanceInProgress.Code
		return resp, nil, true
	})
	var first atomic.Bool
	broker.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if isIt(req.(*kmsg.JoinGroupRequest).InstanceID) && first.CompareAndSwap(false, true) {
			close(held)
			broker.SleepControl(func() { <-release })
		}
		return nil, nil, false
	})
	<-held
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.LeaveGroup(t.Context(), kadm.LeaveGroup(k.Prefix+"copy").InstanceIDs("forgotten")); err != nil {
		t.Fatal(err)
	}
	stop := start(t, k, "other", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	waitFor(t, func() bool { return committed(t, adm, k) >= 10 })
	stop()
	for _, task := range stale {
		task.Done(stream.Output{Topic: "out", Key: task.Key, Value: []byte("stale")})
	}
	close(release)
	streamtest.Produce(t, k, &kgo.Record{Topic: "in", Key: []byte("10")})
	readOnce(t, k, "out", 11)
}
