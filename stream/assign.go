package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/failpoint"
)

// assigned opens a window for each partition that this member got, from its committed offset and completion map, before
// anything is fetched. The client reads the same response, so both begin at the same offset.
func (s *session) assigned(_ context.Context, group *kgo.Client, r *kmsg.OffsetFetchResponse) error {
	ids := map[[16]byte]string{}
	for _, t := range s.topics {
		ids[t.ID] = t.Topic
	}
	member, _ := group.GroupMetadata() // s.group may not be set yet: the client joins while it is made
	for _, t := range r.Groups[0].Topics {
		name := t.Topic
		if name == "" {
			name = ids[t.TopicID]
		}
		for _, at := range t.Partitions {
			if at.ErrorCode != 0 {
				continue // the client tries it again, or reports it
			}
			meta := ""
			if at.Metadata != nil {
				meta = *at.Metadata
			}
			s.assign(tp{s.k.bare(name), at.Partition}, member, at.Offset, meta)
		}
	}
	return nil
}

// given notes what the group gives. The client asks for its committed offsets until they are final, however long that takes.
func (s *session) given(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, numbers := range partitions {
		for _, n := range numbers {
			s.unread[tp{s.k.bare(topic), n}] = time.Now()
		}
	}
}

// tellUnread says where that takes longer than a transaction may.
func (s *session) tellUnread(now time.Time) {
	s.mu.Lock()
	var late []tp
	for k, since := range s.unread {
		if now.Sub(since) > transactionTimeout {
			late = append(late, k)
		}
	}
	s.mu.Unlock()
	if len(late) > 0 {
		s.fetching.note(s.k, s.log, fmt.Errorf("%d partitions wait for their committed offsets, %v among them: a member that had them before has "+
			"left a transaction that Kafka has not ended. Look at the brokers, and whether all topics have enough in-sync replicas", len(late), late[0]))
	}
}

func (s *session) assign(k tp, member string, base int64, meta string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unread, k)
	if s.stopping || s.partitions[k] != nil {
		return // it takes no more, or the client fetched offsets again for what it holds already
	}
	if p := s.adopt(k, member, base, meta); p != nil {
		s.partitions[k] = p
		s.wg.Go(p.work)
		return
	}
	s.epoch++
	p := &partition{
		tp: k, member: member, cfg: &s.o, keys: s.k.spread(k.topic), log: s.log, base: base, meta: meta,
		w: newWindow(s.o.Records, base), assignment: s.epoch,
		wake: make(chan struct{}, 1), full: s.full, waiting: &s.waiting, worked: make(chan struct{}), idle: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	if base >= 0 && meta != "" {
		done, err := decodeProgress(base, meta)
		if err != nil {
			s.log.Warn("records after the committed offset are done again", "topic", k.topic, "partition", k.partition, "err", err)
		}
		p.skip = done
	}
	s.partitions[k] = p
	s.wg.Go(p.work)
}

// revoked lets go of partitions with nothing lost and nothing repeated: what is in flight ends, and is committed, while
// this member still owns them.
func (s *session) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	if held := s.find(gone); len(held) > 0 { // none when it stops: those have ended by then
		s.drain(held)
	}
}

// lost drops partitions that somebody else may own already. A commit under way that names them is refused by its
// generation.
func (s *session) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	for _, p := range s.find(gone) {
		s.letGo(p)
		if s.o.Keep {
			s.fail(errTaken)
		}
	}
}

// find finds those that are gone, and waits for none of them.
func (s *session) find(gone map[string][]int32) []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*partition
	for topic, numbers := range gone {
		for _, n := range numbers {
			delete(s.unread, tp{s.k.bare(topic), n})
			if p := s.partitions[tp{s.k.bare(topic), n}]; p != nil {
				found = append(found, p)
			}
		}
	}
	return found
}

// drain ends assignments in good order.
func (s *session) drain(ps []*partition) {
	for _, p := range ps {
		p.drain()
	}
	limit := time.After(drainTimeout)
wait:
	for _, p := range ps {
		select {
		case <-p.idle:
		case <-limit:
			s.log.Warn("some tasks did not end in time and will be done again", "topic", p.topic, "partition", p.partition)
			break wait
		case <-s.ctx.Done():
			break wait
		}
	}
	failpoint.Hit(failpoint.Revoke)
	if err := s.lastCommit(); err != nil {
		s.log.Warn("the last commit of partitions failed; what was done since the one before may be done again", "err", Explain(err))
	}
	for _, p := range ps {
		s.letGo(p)
	}
}

// lastCommit commits what is done, in drainTimeout. One that is under way may take longer, and is not waited for beyond that.
func (s *session) lastCommit() error {
	ctx, cancel := context.WithTimeout(s.ctx, drainTimeout)
	defer cancel()
	if err := s.commitMu.lockWithin(ctx); err != nil {
		return fmt.Errorf("Kafka has not answered the one before: %w", err)
	}
	defer s.commitMu.Unlock()
	return s.commitWithin(ctx)
}

// letGo forgets an assignment, but for what is to be kept. A pause would outlive it in the client, so it is lifted.
func (s *session) letGo(p *partition) {
	keeps := s.o.Keep && p.keep()
	if !keeps {
		p.end()
	}
	s.mu.Lock()
	delete(s.partitions, p.tp)
	if keeps {
		s.kept[p.tp] = &kept{p, s, s.topics[s.k.Topic(p.topic)].ID, time.Now()}
	}
	s.mu.Unlock()
	s.group.ResumeFetchPartitions(map[string][]int32{s.k.Topic(p.topic): {p.partition}})
}
