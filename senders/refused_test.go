package senders

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// refuse has a broker refuse what is written to a topic, with an error, until on is false. fired counts the requests, and
// records their bytes.
func refuse(t *testing.T, k *stream.Kafka, broker *kfake.Cluster, topic string, code *kerr.Error, on *atomic.Bool) (fired, bytes *atomic.Int64) {
	t.Helper()
	topic = k.Topic(topic)
	found, err := kadm.NewClient(streamtest.Client(t, k)).ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	id := found[topic].ID
	fired, bytes = new(atomic.Int64), new(atomic.Int64)
	broker.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		mine, size := false, 0
		for _, of := range r.(*kmsg.ProduceRequest).Topics {
			mine = mine || of.Topic == topic || of.TopicID == id
			for _, p := range of.Partitions {
				size += len(p.Records)
			}
		}
		if !mine || !on.Load() {
			return nil, nil, false
		}
		fired.Add(1)
		bytes.Add(int64(size))
		return stream.Refuse(r, code), nil, true
	})
	return fired, bytes
}

// TestNothingIsSentWhileCommitsFail, whatever refuses them: each delivery is asked once, the lane says that it is not well, and
// goes on by itself.
func TestNothingIsSentWhileCommitsFail(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{
		kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicas, kerr.MessageTooLarge, kerr.InvalidTimestamp, kerr.UnknownServerError,
	} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			k, broker := streamtest.Embedded(t)
			campaign(t, k, "c1", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
			var on atomic.Bool
			on.Store(true)
			fired, bytes := refuse(t, k, broker, results, code, &on)
			var records []*kgo.Record
			const n = 3000
			for i := range n {
				records = append(records, onTopic(sendBulk, delivery("c1", fmt.Sprint("d", i), "a")))
			}
			streamtest.Produce(t, k, records...)
			// So slow that the lane would still be sending when it is looked at.
			p := &fakeProvider{ceiling: 4, answer: func(context.Context, *Request) (*wire.Result, error) {
				time.Sleep(20 * time.Millisecond)
				return status(200)
			}}
			lane(t, k, p)
			var unwell error
			for deadline := time.Now().Add(time.Minute); unwell == nil || !strings.Contains(unwell.Error(), "commits"); time.Sleep(50 * time.Millisecond) {
				if unwell = k.Health(); time.Now().After(deadline) {
					t.Fatal("nobody says that commits fail")
				}
			}
			if !strings.Contains(unwell.Error(), code.Message) {
				t.Errorf("it does not say why: %v", unwell)
			}
			before := len(p.requests())
			time.Sleep(2 * time.Second)
			if now := len(p.requests()); now != before || now == n || now == 0 {
				t.Errorf("%d requests, and %d two seconds later, while nothing can be committed", before, now)
			}
			if fired.Load() < 2 || bytes.Load() > 20*int64(before)*64 {
				t.Errorf("%d times it was tried, with %d bytes", fired.Load(), bytes.Load())
			}
			on.Store(false)
			began := time.Now()
			p.mu.Lock()
			p.answer = func(context.Context, *Request) (*wire.Result, error) { return status(200) }
			p.mu.Unlock()
			outcomes(t, k, n)
			if took := time.Since(began); took > 60*time.Second {
				t.Errorf("it took %v to go on", took)
			}
			if now := len(p.requests()); now != n {
				t.Errorf("%d requests for %d deliveries", now, n)
			}
			if err := k.Health(); err != nil {
				t.Errorf("all is well, and it says %v", err)
			}
		})
	}
}
