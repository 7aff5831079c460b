package senders

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// finish is where deliveries leave the lane: with their outcome, to a retry topic, or back to the partition. Their jobs are
// the lane's to use again.
func (l *Lane) finish(ends []ended, now time.Time) {
	if len(ends) == 0 {
		return
	}
	p := l.packers.Get().(*packer)
	for i := range ends {
		j, v := ends[i].job, ends[i].verdict
		if j.delivery == nil && v.Next != giveBack {
			j.open(l.kits.take(nil, 1)[0]) // it never had its turn
		}
		l.settle(p, j, v, now)
	}
	p.flush()
	l.packers.Put(p)
	l.recycle(ends)
}

// settle notes what becomes of one delivery.
func (l *Lane) settle(p *packer, j *job, v Verdict, now time.Time) {
	switch v.Next {
	case End:
		l.end(p, j, v, now)
	case Later:
		l.later(p, j, v, now)
	case putOff:
		l.postpone(p, j, v, now)
	default:
		// giveBack, or what a destination would have asked again: its assignment is over.
		j.task.Release()
	}
}

// recycle takes back what ended jobs were carried in.
func (l *Lane) recycle(ends []ended) {
	jobs, kits := make([]*job, 0, batchAtMost), make([]*kit, 0, batchAtMost)
	for len(ends) > 0 {
		n := min(len(ends), batchAtMost)
		for _, e := range ends[:n] {
			if k := e.kit; k != nil {
				k.Tag, k.Handler, k.Delivery = nil, nil, nil
				k.empty()
				kits = append(kits, k)
			}
			*e.job = job{}
			jobs = append(jobs, e.job)
		}
		l.jobs.give(jobs)
		l.kits.give(kits)
		jobs, kits, ends = jobs[:0], kits[:0], ends[n:]
	}
}

// end writes the outcome.
func (l *Lane) end(p *packer, j *job, v Verdict, now time.Time) {
	if v.Outcome == pb.Outcome_OUTCOME_DEAD {
		l.bury(p, j, v.Code, v.Code, "", now)
		return
	}
	p.finished++
	p.result(j, v, now)
	p.done(j)
}

// bury ends a delivery as dead: word is its code in the accounts, reason and code stand in its letter.
func (l *Lane) bury(p *packer, j *job, word, reason, code string, now time.Time) {
	p.finished++
	p.result(j, Verdict{Outcome: pb.Outcome_OUTCOME_DEAD, Code: word}, now)
	p.whole(j, l.letter(j, reason, code, now))
	p.done(j)
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
