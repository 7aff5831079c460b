package senders

import (
	"math/rand/v2"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Backoff grows threefold from backoffFirst to backoffMost. All attempts together take at least three quarters of an hour;
// an outage that is longer is the destination's, which holds its deliveries without counting (destination.go).
const (
	attemptsAtMost = 8

	backoffFirst = 5 * time.Second
	backoffMost  = time.Hour
)

// backoff is how long to wait after so many attempts: up to three times as long each time, and at least half of that, so that what
// failed together does not come back together, and bad luck does not spend all attempts in a minute. It is on top of the provider's
// Retry-After, which jitter never goes below.
func backoff(attempt uint32, floor time.Duration) time.Duration {
	most := backoffFirst
	for ; attempt > 1 && most < backoffMost; attempt-- {
		most *= 3
	}
	most = min(most, backoffMost)
	return floor + most/2 + rand.N(most/2)
}

// isEarly says that a delivery is back before its time though it failed by itself. One that is parked has no early_at.
func isEarly(d *pb.Delivery, now time.Time) bool {
	return now.UnixMilli() < d.DueAt && d.EarlyAt > 0
}

// earlyPart is which part of the time that it still has to wait a delivery waits at least before it comes back early: so the intervals grow
// with its backoff, however often others pass.
const earlyPart = 24

// earlyAt is when a delivery that failed with this verdict, and is due then, may come back if others are seen to pass, Unix ms, or 0: it
// waits its whole time when the failure can be its own only, and when it has come back early in vain and the provider may have taken it.
func (j *job) earlyAt(v Verdict, due, now time.Time) int64 {
	if !v.shared() || j.early && v.Unknown {
		return 0
	}
	return now.Add(min(max(backoffFirst, v.After, due.Sub(now)/earlyPart), due.Sub(now))).UnixMilli()
}

// later puts off a delivery whose attempt failed, or ends it when that was the last one.
func (l *Lane) later(p *packer, j *job, v Verdict, now time.Time) {
	switch {
	case v.Unknown && j.message.Message().GetOnUnknown() == pb.OnUnknown_ON_UNKNOWN_DROP:
		l.bury(p, j, "unknown", "unknown", v.Code, now)
	case j.spent(v, now):
		l.bury(p, j, v.Code, "exhausted", v.Code, now)
	default:
		l.postpone(p, j, v, now)
	}
}

// tooEarly says that a delivery which came back before its time failed as before: then it waits until that, and this was no attempt.
func (j *job) tooEarly(v Verdict, now time.Time) bool {
	return j.early && v.shared() && now.UnixMilli() < j.delivery.DueAt
}

// spent says that the attempt which failed was the last one.
func (j *job) spent(v Verdict, now time.Time) bool {
	return j.attempts() >= attemptsAtMost && !j.tooEarly(v, now)
}

// postpone sends a delivery to the retry topic of the wanted wait, and tells the ledger when it is news.
func (l *Lane) postpone(p *packer, j *job, v Verdict, now time.Time) {
	d, early := j.delivery, j.tooEarly(v, now)
	if early {
		j.asked = false
	}
	tier, due := j.until(v, now)
	if due.UnixMilli() >= d.ExpiresAt {
		l.end(p, j, expired, now)
		return
	}
	// One that came back early and failed as before is no news, but that the provider may have taken it always is.
	if v.Next == Later && (v.Unknown || !early) || d.LastCode != v.Code {
		p.result(j, Verdict{Outcome: pb.Outcome_OUTCOME_DEFERRED, Code: v.Code}, now)
	}
	j.waits(v, due, now)
	p.whole(j, stream.Output{Topic: schemas.TopicRetry(l.Provider.Platform(), l.Class, tier), Key: j.task.Key, Value: encode(d)})
	p.done(j)
}

// until is where a delivery waits with this verdict, and how long. Backoff gives way to the delivery's end, but not below the
// provider's Retry-After.
func (j *job) until(v Verdict, now time.Time) (tier schemas.Tier, due time.Time) {
	switch {
	case v.Next == putOff:
		return parkAt(v.After, j.delivery.ExpiresAt, now)
	case j.tooEarly(v, now):
		due = time.UnixMilli(j.delivery.DueAt)
		return schemas.TierFor(due.Sub(now)), due
	case j.early && !j.asked: // it fell due before its turn came
		return retryAt(v.After, now)
	}
	if tier, due = retryAt(backoff(j.attempts(), v.After), now); due.UnixMilli() >= j.delivery.ExpiresAt {
		tier, due = retryAt(v.After, now)
	}
	return tier, due
}

// waits notes in a delivery why it waits until then, and what it has behind it.
func (j *job) waits(v Verdict, due, now time.Time) {
	d := j.delivery
	if v.Next == Later {
		d.FirstAttemptAt = j.firstAttempt()
		d.Attempt = j.attempts()
	}
	d.LastCode = valid(v.Code)
	d.Asked = j.again
	d.Parked = v.Next == putOff
	d.EarlyAt = j.earlyAt(v, due, now)
	d.DueAt = due.UnixMilli()
}

// retryAt picks the place and the moment. What has to wait longer than the longest tier goes through it more than once.
func retryAt(wait time.Duration, now time.Time) (schemas.Tier, time.Time) {
	return schemas.TierFor(wait), now.Add(max(wait, schemas.Tiers[0].Delay))
}

// parkAt is retryAt for what is put off without an attempt, and comes back as soon as it may: so it waits for as long as its tier does,
// and before its end, Unix ms, for the longest that there still is. Less would send it round and round.
func parkAt(wait time.Duration, expires int64, now time.Time) (schemas.Tier, time.Time) {
	tier, due := retryAt(max(wait, schemas.TierFor(wait).Delay), now)
	for i := len(schemas.Tiers) - 1; i >= 0 && due.UnixMilli() >= expires; i-- {
		tier, due = retryAt(schemas.Tiers[i].Delay, now)
	}
	return tier, due
}
