package senders

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Retry brings deliveries of one platform back from its retry topics to their send topics when they are due, and never
// before. What has expired meanwhile goes back too: the lane ends it.
type Retry struct {
	platform pb.Platform
	consumer *stream.Consumer
	delays   map[string]time.Duration // by topic
}

// NewRetry makes a retry hop. It starts with Run.
func NewRetry(k *stream.Kafka, p pb.Platform) *Retry {
	r := &Retry{platform: p, delays: map[string]time.Duration{}}
	topics := make([]string, 0, len(schemas.Tiers))
	for _, t := range schemas.Tiers {
		topic := schemas.TopicRetry(p, t)
		topics = append(topics, topic)
		r.delays[topic] = t.Delay
	}
	r.consumer = stream.NewConsumer(k, stream.Options{
		Name:   "senders." + schemas.PlatformName(p) + ".retry",
		Topics: topics,
		Handle: r.handle,
	})
	return r
}

// Run brings back what falls due until ctx is done. Run it once.
func (r *Retry) Run(ctx context.Context) error { return r.consumer.Run(ctx) }

// handle waits for each record of one partition in turn: they fall due in the order in which they lie.
func (r *Retry) handle(ctx context.Context, tasks []*stream.Task) {
	for i, t := range tasks {
		d := &pb.Delivery{}
		send := ""
		if proto.Unmarshal(t.Value, d) == nil && schemas.ClassName(d.Class) != "" {
			send = schemas.TopicSend(r.platform, d.Class)
		}
		if send == "" {
			t.Done(t.DeadLetter(schemas.TopicDead(r.platform), "undecodable", "not a belfry.v1.Delivery with a class"))
			continue
		}
		due := time.UnixMilli(d.DueAt)
		// The topic's delay is the longest that anybody may wait here. A Retry-After beyond the longest tier goes round
		// again rather than hold up what lies behind it.
		turn := t.Timestamp.Add(r.delays[t.Topic])
		if turn.After(due) {
			turn = due
		}
		if !sleepUntil(ctx, turn) {
			stream.Release(tasks[i:])
			return
		}
		if left := time.Until(due); left > 0 {
			tier, _ := retryAt(left, time.Now())
			t.Done(stream.Output{Topic: schemas.TopicRetry(r.platform, tier), Key: t.Key, Value: t.Value})
			continue
		}
		failpoint.Hit(failpoint.Retry)
		t.Done(stream.Output{Topic: send, Key: t.Key, Value: t.Value})
	}
}

// sleepUntil waits until a moment, or says false when ctx ended first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
