package stream_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

var errNoAnswer = errors.New("forged: no answer")

// TestForgedErrors (I2): whatever a broker answers to the requests of a commit, each record ends once, and as long as the
// member is not thrown out it is not even handled twice.
func TestForgedErrors(t *testing.T) {
	in := streamtest.Topic{Name: "in", Partitions: 2}
	out := streamtest.Topic{Name: "out", Partitions: 2}
	for _, tt := range []struct {
		name  string
		key   int16
		times int64
		with  *kerr.Error // nil: no answer
	}{
		{"EndTxn: concurrent transactions", int16(kmsg.EndTxn), 3, kerr.ConcurrentTransactions},
		{"EndTxn: invalid producer epoch", int16(kmsg.EndTxn), 1, kerr.InvalidProducerEpoch},
		{"EndTxn: invalid txn state", int16(kmsg.EndTxn), 2, kerr.InvalidTxnState},
		{"EndTxn: not coordinator", int16(kmsg.EndTxn), 2, kerr.NotCoordinator},
		{"EndTxn: no answer", int16(kmsg.EndTxn), 2, nil},
		{"TxnOffsetCommit: illegal generation", int16(kmsg.TxnOffsetCommit), 3, kerr.IllegalGeneration},
		{"TxnOffsetCommit: rebalance in progress", int16(kmsg.TxnOffsetCommit), 3, kerr.RebalanceInProgress},
		{"TxnOffsetCommit: coordinator load", int16(kmsg.TxnOffsetCommit), 2, kerr.CoordinatorLoadInProgress},
		{"TxnOffsetCommit: unknown server error", int16(kmsg.TxnOffsetCommit), 2, kerr.UnknownServerError},
		{"TxnOffsetCommit: no answer", int16(kmsg.TxnOffsetCommit), 2, nil},
		{"Produce: not leader", int16(kmsg.Produce), 2, kerr.NotLeaderForPartition},
		{"Produce: invalid producer epoch", int16(kmsg.Produce), 1, kerr.InvalidProducerEpoch},
		{"Produce: no answer", int16(kmsg.Produce), 2, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, broker := streamtest.Embedded(t, in, out)
			fill(t, k, "in", records)
			var fired atomic.Int64
			broker.ControlKey(tt.key, func(req kmsg.Request) (kmsg.Response, error, bool) {
				if fired.Load() >= tt.times {
					return nil, nil, false
				}
				broker.KeepControl()
				fired.Add(1)
				if tt.with == nil {
					return nil, errNoAnswer, true // closes the connection
				}
				return stream.Refuse(req, tt.with), nil, true
			})
			var did handled
			start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
				for _, task := range tasks {
					did.note(task)
					task.Done(copyOf(task))
				}
			})
			readOnce(t, k, "out", records)
			if fired.Load() < 1 {
				t.Fatal("the fault did not fire")
			}
			did.atMost(t, 1)
		})
	}
}

// TestAnswerLostAfterCommit: the transaction stands, the answer says otherwise, and the consumer finds out rather than
// produce everything again.
func TestAnswerLostAfterCommit(t *testing.T) {
	k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 2})
	fill(t, k, "in", records)
	other := streamtest.Client(t, k)
	var fired atomic.Int64
	broker.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if fired.Add(1) > 1 {
			return nil, nil, false
		}
		broker.KeepControl()
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		broker.SleepControl(func() {
			end := *req.(*kmsg.EndTxnRequest)
			if r, err := end.RequestWith(t.Context(), other); err != nil || r.ErrorCode != 0 {
				t.Errorf("ending the transaction behind its back: %v, %+v", err, r)
			}
		})
		resp.ErrorCode = kerr.InvalidProducerEpoch.Code
		return resp, nil, true
	})
	start(t, k, "a", copyLater)
	readOnce(t, k, "out", records)
	if fired.Load() < 2 {
		t.Fatal("the fault did not fire")
	}
}

// TestRefusedCommitWritesLittle: while what it writes is refused, a consumer tries with a few records rather than with all that
// wait, and a broker that refuses offsets alone costs no more.
func TestRefusedCommitWritesLittle(t *testing.T) {
	for _, key := range []int16{int16(kmsg.Produce), int16(kmsg.TxnOffsetCommit)} {
		t.Run(kmsg.NameForKey(key), func(t *testing.T) {
			t.Parallel()
			k, broker := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 2})
			fill(t, k, "in", records)
			var refuses atomic.Bool
			refuses.Store(true)
			var tries, written atomic.Int64
			broker.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				for _, topic := range r.(*kmsg.ProduceRequest).Topics {
					for _, p := range topic.Partitions {
						written.Add(int64(len(p.Records)))
					}
				}
				if !refuses.Load() || key != int16(kmsg.Produce) {
					return nil, nil, false
				}
				tries.Add(1)
				return stream.Refuse(r, kerr.TopicAuthorizationFailed), nil, true
			})
			if key == int16(kmsg.TxnOffsetCommit) {
				broker.ControlKey(key, func(r kmsg.Request) (kmsg.Response, error, bool) {
					broker.KeepControl()
					if !refuses.Load() {
						return nil, nil, false
					}
					tries.Add(1)
					return stream.Refuse(r, kerr.GroupAuthorizationFailed), nil, true
				})
			}
			var handled atomic.Int64
			c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Records: 8192, Handle: func(_ context.Context, tasks []*stream.Task) {
				handled.Add(int64(len(tasks)))
				for _, task := range tasks {
					out := copyOf(task)
					out.Value = append(make([]byte, 1000), out.Value...)
					task.Done(out)
				}
			}})
			streamtest.Run(t, c.Run)
			waitFor(t, func() bool { return tries.Load() >= 7 })
			if !c.Held() || c.Health() != nil && !strings.Contains(c.Health().Error(), "AUTHORIZATION") {
				t.Errorf("held: %v, health: %v", c.Held(), c.Health())
			}
			// The first attempt has what waits then; compression makes little of it, so its size is compared with the probes'.
			first := written.Load()
			waitFor(t, func() bool { return tries.Load() >= 8 })
			if grown := written.Load() - first; grown > 4000 {
				t.Errorf("one more attempt wrote %d bytes", grown)
			}
			refuses.Store(false)
			readOnce(t, k, "out", records)
			if n := handled.Load(); n != records {
				t.Errorf("%d records were handled %d times", records, n)
			}
			waitFor(t, func() bool { return !c.Held() && c.Health() == nil })
		})
	}
}
