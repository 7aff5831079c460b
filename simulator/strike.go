package simulator

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// alter changes what is true of a call's target. Its provider finds out by itself, or not: by its rules, in their order.
func (f *faultState) alter(c *call) {
	switch f.Kind {
	case Unregister:
		c.target.gone = true
	case Mismatch:
		if other, apns := otherEnvironment[c.target.service]; apns && f.Reason == "BadDeviceToken" {
			c.target.service = other
		} else {
			c.target.other = true
		}
	case Rename:
		c.target.renamed = true
	default:
		return
	}
	f.count()
}

// strike does to a request what the fault does. It is over with the request when it returns true: then the answer stands
// in the provider's place, or is none.
func (f *faultState) strike(ctx context.Context, now time.Time, pr provider, c *call) (a Answer, over bool) {
	if f.changesTargets() || f.counts() && f.quota.take(&f.Fault, c, now) {
		return Answer{}, false
	}
	f.count()
	switch f.Kind {
	case Latency:
		d := time.Duration(f.Delay)
		if f.Jitter > 0 {
			d += rand.N(time.Duration(f.Jitter))
		}
		t := time.NewTimer(d)
		defer t.Stop()
		return Answer{}, !f.wait(ctx, t.C)
	case Stall:
		return Answer{}, !f.wait(ctx, nil)
	case Status:
		return pr.refuse(c, &f.Fault, f.Status), true
	case Credentials:
		return pr.refuse(c, &f.Fault, http.StatusForbidden), true
	case Quota, Disruptive:
		return pr.refuse(c, &f.Fault, http.StatusTooManyRequests), true
	case GoAway:
		return Answer{}, false
	}
	return Answer{Ending: f.Kind, Code: resetCodes[f.Code]}, true
}

// wait is over when the fault is lifted or t fires, and false when the client left first.
func (f *faultState) wait(ctx context.Context, t <-chan time.Time) bool {
	select {
	case <-f.lifted:
	case <-t:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// retryAfter adds the fault's Retry-After to an answer, if it has one.
func (f *Fault) retryAfter(a Answer) Answer {
	if f.RetryAfter > 0 {
		a.add(Field{"Retry-After", strconv.Itoa(f.RetryAfter)})
	}
	return a
}
