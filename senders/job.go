package senders

import (
	"context"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// job is one delivery on its way through a lane. One goroutine has it at a time. When it has ended, it is the next one's.
type job struct {
	trip
	parcel
}

// trip is what concerns one delivery alone.
type trip struct {
	task *stream.Task
	// ctx ends with the task's assignment.
	ctx      context.Context
	delivery *pb.Delivery // the parcel's, or one of its own
	// run is nil for a delivery that carries its message.
	run     *run
	message *message.Compiled
	// request is nil until the first is made.
	request *Request

	// asked says that the provider was asked at least once.
	asked bool
	// refreshed says that the provider's token was renewed for it once.
	refreshed bool
	// repeats counts the requests of this attempt that the provider did not process.
	repeats uint8
	queued  time.Time
	begun   time.Time
	// epoch is the destination's at the time of asking: an answer speaks only about the state it was asked in.
	epoch uint64
}

// ended is a job with what is to become of it.
type ended struct {
	*job
	verdict Verdict
}

// Words that only the engine says, beyond a provider's verdicts.
const (
	// putOff sends the delivery to a retry topic for Verdict.After without counting an attempt.
	putOff Next = iota + 100
	// giveBack leaves it to the partition's next owner.
	giveBack
	// noToken keeps it until there is a provider token.
	noToken
)

// check says whether a delivery may still be sent at this moment, or what becomes of it. It is asked again right
// before each request, so that a cancel acts on what is queued already.
func (j *job) check(now time.Time) (Verdict, bool) {
	switch {
	case j.ctx.Err() != nil:
		return Verdict{Next: giveBack}, false
	case now.UnixMilli() >= j.delivery.GetExpiresAt():
		return expired, false
	case j.run == nil:
		return Verdict{}, true
	}
	switch j.run.State() {
	case pb.CampaignState_CAMPAIGN_STATE_CANCELLED:
		return Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_CANCELLED, Code: "cancelled"}, false
	case pb.CampaignState_CAMPAIGN_STATE_PAUSED:
		return Verdict{Next: putOff, Code: "paused", After: j.run.pausedFor(now)}, false
	default:
		return Verdict{}, true
	}
}

var expired = Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_EXPIRED, Code: "expired"}

// deadline is when a request begun now must have its answer.
func (j *job) deadline(now time.Time, timeout time.Duration) time.Time {
	at := now.Add(timeout)
	if e := time.UnixMilli(j.delivery.GetExpiresAt()); e.Before(at) {
		return e
	}
	return at
}
