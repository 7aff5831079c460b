package senders

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// retry brings a lane's deliveries back from its retry topics to its send topic when they are due. Those that were parked for their
// destination's or campaign's sake come also as soon as that goes on, and those that may have failed for its sake when such as they are
// seen to pass; those that failed by themselves never before. What has expired meanwhile goes back too: the lane ends it.
type retry struct {
	lane     *Lane
	consumer *stream.Consumer
	delays   map[string]time.Duration // by topic

	mu sync.Mutex
	// waiting is bounded by the consumer's windows.
	waiting []*parked
}

// parked is a record of a retry topic.
type parked struct {
	ctx  context.Context
	task *stream.Task
	// due is not before when the provider is asked again, turn when it leaves this topic at the latest.
	due, turn time.Time
	// early says that it may come back before: where, run, paced and again are what that depends on.
	early bool
	// failed says that it did, for a reason that may have been its destination's, soonest from when on it may come back then.
	failed  bool
	soonest time.Time
	where   Destination
	run     runKey
	paced   bool
	again   bool
	// created is when the delivery was made, Unix ms.
	created int64
}

const (
	// retryEvery is how late a delivery may come back.
	retryEvery = 100 * time.Millisecond
	// wantsEvery is how often it is looked whether parked ones may come back.
	wantsEvery = 500 * time.Millisecond
)

func newRetry(l *Lane) *retry {
	r := &retry{lane: l, delays: map[string]time.Duration{}}
	topics := make([]string, 0, len(schemas.Tiers))
	for _, t := range schemas.Tiers {
		topic := schemas.TopicRetry(l.Provider.Platform(), l.Class, t)
		topics = append(topics, topic)
		r.delays[topic] = t.Delay
	}
	r.consumer = stream.NewConsumer(l.Kafka, stream.Options{
		Name:   schemas.LaneRole(l.Provider.Platform(), l.Class) + ".retry",
		Topics: topics,
		Handle: r.handle,
	})
	return r
}

// run brings back what falls due until ctx is done. Run it once.
func (r *retry) run(ctx context.Context) error {
	var looked time.Time
	return r.consumer.RunTicking(ctx, retryEvery, func(now time.Time) {
		look := now.Sub(looked) >= wantsEvery
		if look {
			looked = now
		}
		r.bringBack(now, look)
	})
}

func (r *retry) handle(ctx context.Context, tasks []*stream.Task) {
	for _, t := range tasks {
		if p := r.read(ctx, t); p != nil {
			r.mu.Lock()
			r.waiting = append(r.waiting, p)
			r.mu.Unlock()
		}
	}
}

// read decodes a record. One that is no delivery it ends, and returns nil.
func (r *retry) read(ctx context.Context, t *stream.Task) *parked {
	d := &pb.Delivery{}
	if proto.Unmarshal(t.Value, d) != nil {
		t.Done(t.DeadLetter(schemas.TopicDead(r.lane.Provider.Platform()), "undecodable", "not a belfry.v1.Delivery"))
		return nil
	}
	p := &parked{ctx: ctx, task: t, due: time.UnixMilli(d.DueAt), created: d.CreatedAt}
	// The topic's delay is the longest that anybody waits here. A Retry-After beyond the longest tier goes round again
	// rather than pin its partition's offset.
	p.turn = t.Timestamp.Add(r.delays[t.Topic])
	if p.turn.After(p.due) {
		p.turn = p.due
	}
	if d.EarlyAt > 0 {
		p.failed, p.soonest = true, time.UnixMilli(d.EarlyAt)
	}
	if d.Parked || p.failed {
		where, err := r.lane.Provider.Destination(d)
		p.early, p.where, p.paced, p.again = err == nil, where, d.LastCode == codePace, d.Attempt > 0 || d.Asked
		if run := campaignOf(d); run != "" {
			p.run = runKey{d.App, run}
		}
	}
	return p
}

// campaignOf is the campaign of a delivery, or "" where it carries its message.
func campaignOf(d *pb.Delivery) string {
	if d.Message != nil {
		return ""
	}
	return d.Run
}

// oldest is how long ago the oldest delivery that waits here was made.
func (r *retry) oldest(now time.Time) (age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.waiting {
		age = max(age, now.Sub(time.UnixMilli(p.created)))
	}
	return age
}

// bringBack ends what waits no more. look says whether to look for parked ones too.
func (r *retry) bringBack(now time.Time, look bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed map[Destination]int
	if look {
		failed = r.failed()
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(p *parked) bool {
		return r.ended(p, now, look && p.early && !now.Before(p.soonest) && r.lane.wants(p, failed[p.where], now))
	})
}

// failed counts by destination those that failed, and may come back early. Called with mu held.
func (r *retry) failed() map[Destination]int {
	n := map[Destination]int{}
	for _, p := range r.waiting {
		if p.failed {
			n[p.where]++
		}
	}
	return n
}

func (r *retry) ended(p *parked, now time.Time, wanted bool) bool {
	switch {
	case p.ctx.Err() != nil:
		p.task.Release()
	case wanted:
		r.back(p)
	case now.Before(p.turn):
		return false
	case now.Before(p.due):
		tier, _ := retryAt(p.due.Sub(now), now)
		p.task.Done(stream.Output{Topic: schemas.TopicRetry(r.lane.Provider.Platform(), r.lane.Class, tier), Key: p.task.Key, Value: p.task.Value})
	default:
		r.back(p)
	}
	return true
}

func (r *retry) back(p *parked) {
	failpoint.Hit(failpoint.Retry)
	p.task.Done(stream.Output{Topic: r.lane.topic, Key: p.task.Key, Value: p.task.Value})
}
