package senders

import (
	"context"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// job is one delivery on its way through a lane. One goroutine has it at a time. When it has ended, it is the next one's.
//
// Tens of thousands may wait in a lane's windows, and a few thousand at most are in flight. So a job is small, and what it
// takes to ask about it comes with the kit, which is hot in the cache from one delivery to the next: the delivery itself is
// decoded on admission only to be looked at, and again when its turn has come.
type job struct {
	task *stream.Task
	// ctx ends with the task's assignment.
	ctx context.Context
	// run is nil for a delivery that carries its message. name is its name, and lies in the record.
	run     *run
	name    string
	message *message.Compiled
	// expires is when the delivery does, Unix ms.
	expires int64

	// kit and delivery are nil until the delivery is opened.
	kit      *kit
	delivery *pb.Delivery

	// asked says that the provider was asked, and that this counts as an attempt.
	asked bool
	// again says that the provider was asked before and did not take it: as a probe it is the last choice.
	again bool
	// early says that it failed before and is back before its time: it counts no attempt if it fails so again. A delivery that is
	// parked is none such.
	early bool
	// refreshed says that the provider's token was renewed for it once.
	refreshed bool
	// out is its line's, from the time that it stands in one.
	out *out
	// repeats counts the requests of this attempt that the provider did not process.
	repeats uint8
	// created is when the delivery was made, Unix ms, whatever retry topics it has been on since.
	created int64
	queued  time.Time
	begun   time.Time
	// epoch is the breaker's at the time of asking.
	epoch uint64
}

// kit is what a delivery needs while it is asked about.
type kit struct {
	Request
	parcel
}

// open has the job's delivery decoded. It was looked at on admission, so it can be.
func (j *job) open(k *kit) {
	j.kit = k
	if j.delivery != nil {
		return
	}
	d, err := k.decode(j.task.Value)
	if err != nil {
		panic("senders: a delivery that was readable is no more: " + err.Error())
	}
	if k.inline != nil {
		d.Message = j.message.Message()
	}
	j.delivery = d
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
	// placed says that it goes to its destination.
	placed
)

// The reasons of a destination that has no provider token: it waits for it, or is stopped, since the credential that the token is
// made of is refused. Whoever fetches it speaks of them in the log.
const (
	codeNoToken      = "no-token"
	codeTokenRefused = "token-refused"
)

// check says whether a delivery may still be sent at this moment, or what becomes of it. It is asked again right
// before each request, so that a cancel acts on what is queued already.
func (j *job) check(now time.Time) (Verdict, bool) {
	switch {
	case j.ctx.Err() != nil:
		return Verdict{Next: giveBack}, false
	case now.UnixMilli() >= j.expires:
		return expired, false
	case j.run == nil:
		return Verdict{}, true
	}
	switch j.run.State() {
	case pb.CampaignState_CAMPAIGN_STATE_CANCELLED:
		return Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_CANCELLED, Code: "cancelled"}, false
	case pb.CampaignState_CAMPAIGN_STATE_PAUSED:
		return Verdict{Next: putOff, Code: codePaused, After: j.run.pausedFor(now)}, false
	default:
		return Verdict{}, true
	}
}

var expired = Verdict{Next: End, Outcome: pb.Outcome_OUTCOME_EXPIRED, Code: "expired"}

// timeout is how long a request that is sent now may take, of at most so long: one that expires has no use for a later answer.
func (j *job) timeout(now time.Time, most time.Duration) time.Duration {
	return max(time.Millisecond, min(most, time.UnixMilli(j.expires).Sub(now)))
}
