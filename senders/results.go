package senders

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// finish is where every delivery leaves the lane: with its outcome, to a retry topic, or back to the partition.
func (l *Lane) finish(j *job, v Verdict) {
	now := time.Now()
	switch v.Next {
	case End:
		l.end(j, v, now)
	case Later:
		l.later(j, v, now)
	case putOff:
		l.postpone(j, v, v.After, now)
	default:
		// giveBack, or what a destination would have asked again: its assignment is over.
		j.task.Release()
	}
}

// end writes the outcome.
func (l *Lane) end(j *job, v Verdict, now time.Time) {
	if v.Outcome == pb.Outcome_OUTCOME_DEAD {
		l.bury(j, v.Code, v.Code, "", now)
		return
	}
	l.finished.Add(1)
	j.task.Done(l.result(j, v, now))
}

// bury ends a delivery as dead: word is its code in the accounts, reason and code stand in its letter.
func (l *Lane) bury(j *job, word, reason, code string, now time.Time) {
	l.finished.Add(1)
	j.task.Done(
		l.result(j, Verdict{Outcome: pb.Outcome_OUTCOME_DEAD, Code: word}, now),
		l.letter(j, reason, code, now),
	)
}

// result is what the ledger counts.
func (l *Lane) result(j *job, v Verdict, now time.Time) stream.Output {
	d := j.delivery
	r := &pb.Result{
		Delivery: d.Id, Outcome: v.Outcome, Code: v.Code, At: now.UnixMilli(), Attempt: j.attempts(),
		Planned: transactional(d) && d.Attempt == 0 && d.LastCode == "",
		Message: v.Outcome == pb.Outcome_OUTCOME_REJECTED && v.Scope == ScopeMessage,
	}
	if v.Outcome == pb.Outcome_OUTCOME_ACCEPTED {
		r.Code = ""
	}
	if v.Outcome == pb.Outcome_OUTCOME_UNREGISTERED {
		at := v.InvalidAt
		if at == 0 {
			at = now.UnixMilli()
		}
		r.Invalid = &pb.Invalid{Device: d.Device, At: at, RegisteredAt: d.RegisteredAt}
	}
	return stream.Output{
		Topic: schemas.TopicResults(l.Provider.Platform()),
		Key:   schemas.Key(d.App, d.Run),
		Value: schemas.AppendResult(nil, r),
		Mode:  stream.Append,
	}
}

// attempts counts the requests made for a delivery, this one included.
func (j *job) attempts() uint32 {
	if j.asked {
		return j.delivery.Attempt + 1
	}
	return j.delivery.Attempt
}

// letter is the delivery as it was, for whoever reads or replays the dead.
func (l *Lane) letter(j *job, reason, code string, now time.Time) stream.Output {
	value := encode(&pb.DeadLetter{
		Delivery: j.delivery, Reason: valid(reason), Code: valid(code), Attempts: j.attempts(),
		FirstAt: j.firstAttempt(), LastAt: now.UnixMilli(), Source: j.task.Source(),
	})
	return stream.Output{Topic: schemas.TopicDead(l.Provider.Platform()), Key: j.task.Key, Value: value}
}

// firstAttempt is when the provider was asked first, Unix ms, or 0.
func (j *job) firstAttempt() int64 {
	if j.delivery.FirstAttemptAt != 0 || !j.asked {
		return j.delivery.FirstAttemptAt
	}
	return j.begun.UnixMilli()
}

// valid makes a provider's word fit for protobuf.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }

// encode cannot fail: what was decoded has valid strings, and the rest is made valid.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("senders: encode: " + err.Error())
	}
	return b
}
