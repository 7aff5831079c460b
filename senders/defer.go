package senders

import (
	"math/rand/v2"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Backoff grows threefold from backoffFirst to backoffMost. All attempts together take about three quarters of an hour;
// an outage that is longer is the destination's, which holds its deliveries without counting (destination.go).
const (
	attemptsAtMost = 8

	backoffFirst = 5 * time.Second
	backoffMost  = time.Hour
)

// backoff is how long to wait after so many attempts: anything up to three times as long each time (full jitter, so that
// what failed together does not come back together), on top of the provider's Retry-After, which jitter never goes below.
func backoff(attempt uint32, floor time.Duration) time.Duration {
	most := backoffFirst
	for ; attempt > 1 && most < backoffMost; attempt-- {
		most *= 3
	}
	return floor + rand.N(min(most, backoffMost))
}

// later puts off a delivery whose attempt failed, or ends it when that was the last one.
func (l *Lane) later(p *packer, j *job, v Verdict, now time.Time) {
	if v.Unknown && j.message.Message().GetOnUnknown() == pb.OnUnknown_ON_UNKNOWN_DROP {
		l.bury(p, j, "unknown", "unknown", v.Code, now)
		return
	}
	if j.attempts() >= attemptsAtMost {
		l.bury(p, j, v.Code, "exhausted", v.Code, now)
		return
	}
	l.postpone(p, j, v, backoff(j.attempts(), v.After), now)
}

// postpone sends a delivery to the retry topic of the wanted wait, and tells the ledger when it is news. The wait gives
// way to the delivery's end, but not below the verdict's own.
func (l *Lane) postpone(p *packer, j *job, v Verdict, wait time.Duration, now time.Time) {
	d := j.delivery
	tier, due := retryAt(wait, now)
	switch {
	case v.Next == putOff:
		tier, due = parkAt(wait, d.ExpiresAt, now)
	case due.UnixMilli() >= d.ExpiresAt:
		tier, due = retryAt(v.After, now)
	}
	if due.UnixMilli() >= d.ExpiresAt {
		l.end(p, j, expired, now)
		return
	}
	if v.Next == Later || d.LastCode != v.Code {
		p.result(j, Verdict{Outcome: pb.Outcome_OUTCOME_DEFERRED, Code: v.Code}, now)
	}
	if v.Next == Later {
		d.FirstAttemptAt = j.firstAttempt()
		d.Attempt = j.attempts()
	}
	d.LastCode = valid(v.Code)
	d.Parked = v.Next == putOff
	d.DueAt = due.UnixMilli()
	p.whole(j, stream.Output{Topic: schemas.TopicRetry(l.Provider.Platform(), l.Class, tier), Key: j.task.Key, Value: encode(d)})
	p.done(j)
}

// retryAt picks the tier and the moment. All of a tier wait equally long, so that a topic's records fall due in the order
// in which they lie; what has to wait longer than the longest goes through it more than once.
func retryAt(wait time.Duration, now time.Time) (schemas.Tier, time.Time) {
	tier := schemas.TierFor(wait)
	return tier, now.Add(max(tier.Delay, wait))
}

// parkAt is retryAt for what is put off without an attempt. Before its end, Unix ms, it takes the longest tier that there
// still is: a shorter one would send it round and round.
func parkAt(wait time.Duration, expires int64, now time.Time) (schemas.Tier, time.Time) {
	tier, due := retryAt(wait, now)
	for i := len(schemas.Tiers) - 1; i >= 0 && due.UnixMilli() >= expires; i-- {
		tier, due = retryAt(schemas.Tiers[i].Delay, now)
	}
	return tier, due
}
