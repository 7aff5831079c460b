package stream

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// keepFor is how long a partition is kept that another process may have by now. It bounds how long its window takes memory.
const keepFor = 15 * time.Minute

// kept is a partition whose assignment is over, with a window that holds what is done or begun and not committed.
type kept struct {
	*partition
	by    *session
	topic kadm.TopicID
	at    time.Time
}

// errTaken ends a session whose partitions were taken away: the next one takes up what was kept, when nobody works on it.
var errTaken = errors.New("the group took partitions away from this process")

// keep ends an assignment for the time being, if there is anything to keep. Tasks still end, and what was received waits.
func (p *partition) keep() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.halted != nil || p.busy == 0 && p.w.fresh.records == 0 && p.tried == nil {
		return false
	}
	p.draining, p.away = true, true
	p.cancel()
	return true
}

// adopt goes on with a partition that was kept, if its group stands where it stood, or where the commit in doubt would have
// brought it: then nobody has got on with it meanwhile. Only one that another session kept: nothing works on that any more but
// tasks that end. Consumer.mu is held.
func (s *session) adopt(k tp, member string, base int64, meta string) *partition {
	old := s.kept[k]
	delete(s.kept, k)
	if old == nil {
		return nil
	}
	if old.by != s && old.topic == s.topics[s.k.Topic(k.topic)].ID && old.resume(s, member, base, meta) {
		return old.partition
	}
	old.end()
	return nil
}

// resume begins an assignment where the last one was left. It is false when the group stands elsewhere.
func (p *partition) resume(s *session, member string, base int64, meta string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch tried := p.tried; {
	case tried != nil && base == tried.base && meta == tried.meta:
		p.settle(tried)
	case base != p.base || meta != p.meta:
		return false
	case tried != nil:
		p.takeBack(tried)
	}
	p.member, p.full, p.waiting = member, s.full, &s.waiting
	p.waiting.Add(p.out.bytes)
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	p.worked, p.idle = make(chan struct{}), make(chan struct{})
	p.draining, p.away, p.paused = false, false, false
	p.signal()
	return true
}

// takeBack puts what a commit that does not stand covered before what was done since. p.mu is held.
func (p *partition) takeBack(part *part) {
	since := p.out
	p.out, p.tried = part.out, nil
	p.out.lent = true
	p.out.join(&since)
	p.w.fresh.records += part.frees.records
	p.w.fresh.bytes += part.frees.bytes
}

// forgetKept lets go of what has been kept for too long.
func (c *Consumer) forgetKept(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, old := range c.kept {
		if now.Sub(old.at) > keepFor {
			old.end()
			delete(c.kept, k)
		}
	}
}
