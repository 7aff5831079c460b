package stream_test

import (
	"context"
	"errors"
	"sync"
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
	endTxn := func(code *kerr.Error) func(kmsg.Request) kmsg.Response {
		return func(r kmsg.Request) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = code.Code
			return resp
		}
	}
	offsets := func(code *kerr.Error) func(kmsg.Request) kmsg.Response {
		return func(r kmsg.Request) kmsg.Response {
			req, resp := r.(*kmsg.TxnOffsetCommitRequest), r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
			for _, topic := range req.Topics {
				rt := kmsg.TxnOffsetCommitResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
				for _, p := range topic.Partitions {
					rt.Partitions = append(rt.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code.Code})
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp
		}
	}
	produce := func(code *kerr.Error) func(kmsg.Request) kmsg.Response {
		return func(r kmsg.Request) kmsg.Response {
			req, resp := r.(*kmsg.ProduceRequest), r.ResponseKind().(*kmsg.ProduceResponse)
			for _, topic := range req.Topics {
				rt := kmsg.ProduceResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
				for _, p := range topic.Partitions {
					rt.Partitions = append(rt.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: code.Code})
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp
		}
	}
	for _, tt := range []struct {
		name  string
		key   int16
		times int64
		forge func(kmsg.Request) kmsg.Response
	}{
		{"EndTxn: concurrent transactions", int16(kmsg.EndTxn), 3, endTxn(kerr.ConcurrentTransactions)},
		{"EndTxn: invalid producer epoch", int16(kmsg.EndTxn), 1, endTxn(kerr.InvalidProducerEpoch)},
		{"EndTxn: invalid txn state", int16(kmsg.EndTxn), 2, endTxn(kerr.InvalidTxnState)},
		{"EndTxn: not coordinator", int16(kmsg.EndTxn), 2, endTxn(kerr.NotCoordinator)},
		{"EndTxn: no answer", int16(kmsg.EndTxn), 2, nil},
		{"TxnOffsetCommit: illegal generation", int16(kmsg.TxnOffsetCommit), 3, offsets(kerr.IllegalGeneration)},
		{"TxnOffsetCommit: rebalance in progress", int16(kmsg.TxnOffsetCommit), 3, offsets(kerr.RebalanceInProgress)},
		{"TxnOffsetCommit: coordinator load", int16(kmsg.TxnOffsetCommit), 2, offsets(kerr.CoordinatorLoadInProgress)},
		{"TxnOffsetCommit: unknown server error", int16(kmsg.TxnOffsetCommit), 2, offsets(kerr.UnknownServerError)},
		{"TxnOffsetCommit: no answer", int16(kmsg.TxnOffsetCommit), 2, nil},
		{"Produce: not leader", int16(kmsg.Produce), 2, produce(kerr.NotLeaderForPartition)},
		{"Produce: invalid producer epoch", int16(kmsg.Produce), 1, produce(kerr.InvalidProducerEpoch)},
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
				if tt.forge == nil {
					return nil, errNoAnswer, true // closes the connection
				}
				return tt.forge(req), nil, true
			})
			var mu sync.Mutex
			handled := map[string]int{}
			start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
				for _, task := range tasks {
					mu.Lock()
					handled[string(task.Key)]++
					mu.Unlock()
					task.Done(copyOf(task))
				}
			})
			readOnce(t, k, "out", records)
			if fired.Load() < 1 {
				t.Fatal("the fault did not fire")
			}
			mu.Lock()
			defer mu.Unlock()
			for key, n := range handled {
				if n != 1 {
					t.Errorf("record %s was handled %d times", key, n)
				}
			}
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
