package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
)

// poll hands fetched records to their windows, until the session ends. It never waits for a task.
func (s *session) poll() {
	for {
		fetches := s.group.PollRecords(s.ctx, pollRecords)
		if s.ctx.Err() != nil {
			return
		}
		if !fetches.Empty() {
			failpoint.Hit(failpoint.Polled)
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			p := s.partition(tp{s.k.bare(f.Topic), f.Partition})
			if p == nil {
				return // revoked since
			}
			if f.Err != nil {
				s.fetchFailed(p, f.Err)
			}
			p.receive(f.Records, f.HighWatermark)
			s.throttle(p)
		})
		for _, e := range fetches.Errors() {
			s.pollFailed(e)
		}
		rest(s.ctx, fetches)
	}
}

// pollFailed notes what hinders the group as a whole. The client goes on by itself.
func (s *session) pollFailed(e kgo.FetchError) {
	switch {
	case errors.Is(e.Err, kerr.FencedInstanceID):
		s.fail(fmt.Errorf("another process consumes as instance %q: give each its own instance name", s.k.Instance))
	case s.partition(tp{s.k.bare(e.Topic), e.Partition}) == nil && !retriable(e.Err):
		s.fetching.note(s.k, s.log, Explain(e.Err))
	}
}

func (s *session) fetchFailed(p *partition, err error) {
	if !errors.Is(err, kerr.OffsetOutOfRange) {
		if !retriable(err) {
			s.fetching.note(s.k, s.log, fmt.Errorf("fetch %v: %w", p.tp, Explain(err)))
		}
		return
	}
	err = fmt.Errorf("position %d of %s/%d is not on its log any more: retention removed records that were not done, or the log was cut; "+
		"this partition stops here. To go on from what is left, stop this role and set the offset of group %s by hand",
		p.committed(), s.k.Topic(p.topic), p.partition, s.groupName())
	if p.halt(err) {
		s.group.PauseFetchPartitions(map[string][]int32{s.k.Topic(p.topic): {p.partition}})
		s.log.Error("partition stopped", "topic", p.topic, "partition", p.partition, "err", err)
	}
}

// retriable errors are the client's business: it tries again by itself, and Watch says when Kafka is away.
func retriable(err error) bool {
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed)
}

// throttle pauses a partition whose window is nearly full. Pausing throws away what the client has buffered of it, so
// there is room between the marks.
func (s *session) throttle(p *partition) {
	name := map[string][]int32{s.k.Topic(p.topic): {p.partition}}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch fill := p.fill(); {
	case !p.paused && fill >= 0.9:
		p.paused = true
		s.group.PauseFetchPartitions(name)
	case p.paused && p.halted == nil && fill <= 0.5:
		p.paused = false
		s.group.ResumeFetchPartitions(name)
	}
}
