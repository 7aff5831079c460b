package stream_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// keeper is a consumer with Keep whose records end in three ways: a third at once, a third when late is closed, and the rest is
// released when it is told to stop.
type keeper struct {
	mu    sync.Mutex
	begun map[string]int
	late  chan struct{}
	again atomic.Bool // do all at once
}

func (p *keeper) handle(ctx context.Context, tasks []*stream.Task) {
	var waits []*stream.Task
	for _, task := range tasks {
		n := int(task.Key[len(task.Key)-1]-'0') % 3
		if n == 2 && !p.again.Load() {
			waits = append(waits, task)
			continue
		}
		p.mu.Lock()
		p.begun[string(task.Key)]++
		p.mu.Unlock()
		if n == 1 && !p.again.Load() {
			go func() {
				<-p.late
				task.Done(copyOf(task))
			}()
			continue
		}
		task.Done(copyOf(task))
	}
	if len(waits) > 0 {
		<-ctx.Done()
		stream.Release(waits)
	}
}

func (p *keeper) run(t *testing.T, k *stream.Kafka, instance string) *stream.Consumer {
	mine := *k
	mine.Instance = instance
	c := stream.NewConsumer(&mine, stream.Options{Name: "copy", Topics: []string{"in"}, Keep: true, Handle: p.handle})
	streamtest.Run(t, c.Run)
	return c
}

// TestWhatIsDoneIsKept: nothing can be committed, and then the group takes a member's partitions away and gives them back, in
// another session. What it had done is not done again, nor what was under way, and what was given back is handed over.
func TestWhatIsDoneIsKept(t *testing.T) {
	for _, stands := range []bool{false, true} {
		t.Run(map[bool]string{false: "refused", true: "answer lost"}[stands], func(t *testing.T) {
			t.Parallel()
			k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 3}, streamtest.Topic{Name: "out", Partitions: 2})
			other := streamtest.Client(t, k)
			var refuses atomic.Bool
			var fired atomic.Int64
			refuses.Store(true)
			broker.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				req := r.(*kmsg.EndTxnRequest)
				if !refuses.Load() || !req.Commit {
					return nil, nil, false
				}
				if fired.Add(1) == 1 && stands {
					broker.SleepControl(func() {
						end := *req
						refuses.Store(false)
						if resp, err := end.RequestWith(t.Context(), other); err != nil || resp.ErrorCode != 0 {
							t.Errorf("ending the transaction behind its back: %v, %+v", err, resp)
						}
						refuses.Store(true)
					})
				}
				return nil, errNoAnswer, true
			})
			broker.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				return nil, errNoAnswer, stands && refuses.Load() && fired.Load() > 0 // so that nobody finds out
			})
			fill(t, k, "in", 300)
			p := &keeper{begun: map[string]int{}, late: make(chan struct{})}
			c := p.run(t, k, "a")
			waitFor(t, func() bool { return c.Held() })
			adm := kadm.NewClient(streamtest.Client(t, k))
			if _, err := adm.LeaveGroup(t.Context(), kadm.LeaveGroup(k.Prefix+"copy").InstanceIDs("a")); err != nil {
				t.Fatal(err)
			}
			p.again.Store(true)
			time.Sleep(4 * time.Second) // it hears of it with a heartbeat
			close(p.late)
			refuses.Store(false)
			readOnce(t, k, "out", 300)
			if fired.Load() == 0 {
				t.Error("the fault did not fire")
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			for key, n := range p.begun {
				if n != 1 {
					t.Errorf("record %s was done %d times", key, n)
				}
			}
		})
	}
}

// TestWhatAnotherHasDoneIsNotKept: between, another member had the partitions, and did what the first had done and not committed.
func TestWhatAnotherHasDoneIsNotKept(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 3}, streamtest.Topic{Name: "out", Partitions: 2})
	var frozen atomic.Bool
	var fired atomic.Int64
	frozen.Store(true)
	id := k.Prefix + "copy.a"
	broker.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !frozen.Load() || r.(*kmsg.TxnOffsetCommitRequest).TransactionalID != id {
			return nil, nil, false
		}
		fired.Add(1)
		return nil, errNoAnswer, true
	})
	broker.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		of := r.(*kmsg.JoinGroupRequest).InstanceID
		return nil, errNoAnswer, of != nil && *of == "a" && frozen.Load() && fired.Load() > 0
	})
	fill(t, k, "in", 300)
	p := &keeper{begun: map[string]int{}, late: make(chan struct{})}
	c := p.run(t, k, "a")
	waitFor(t, func() bool { return c.Held() })
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.LeaveGroup(t.Context(), kadm.LeaveGroup(k.Prefix+"copy").InstanceIDs("a")); err != nil {
		t.Fatal(err)
	}
	stop := start(t, k, "b", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	waitFor(t, func() bool { return committed(t, adm, k) >= 300 })
	stop()
	p.again.Store(true)
	frozen.Store(false)
	close(p.late)
	streamtest.Produce(t, k, numbered("in", 300, 330)...)
	readOnce(t, k, "out", 330)
	if fired.Load() == 0 {
		t.Error("the fault did not fire")
	}
}
