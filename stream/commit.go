package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/failpoint"
)

// snapshot is what one commit makes true: outputs, and for each partition where its group stands. It is tried until it
// is known to stand, or its partitions are another's.
type snapshot struct {
	nonce uint64
	parts []part
}

type part struct {
	p     *partition
	base  int64
	meta  string
	low   uint64
	frees amount
	out   outputs
}

// committer commits every 250 ms, and sooner when much waits.
func (s *session) committer() {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for failures := 0; failures < maxCommitFailures; {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.full:
		}
		s.commitMu.Lock()
		ctx, cancel := context.WithTimeout(s.ctx, transactionTimeout)
		err := s.commit(ctx)
		cancel()
		s.commitMu.Unlock()
		if failures++; err == nil {
			failures = 0
		} else if forgotten(err) && s.ctx.Err() == nil {
			s.fail(err)
			return
		} else if s.ctx.Err() == nil {
			s.log.Warn("commit did not succeed and is tried again; windows wait for it", "err", err)
		}
	}
	s.fail(errors.New("commits do not succeed"))
}

// commit makes everything that is done now true on Kafka. When it fails its snapshot is kept and comes first the next
// time: nothing done is forgotten, nothing is produced twice. commitMu is held.
func (s *session) commit(ctx context.Context) error {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if s.pending == nil {
			s.pending = s.snapshot()
		}
		s.pending.forgetLost()
		if len(s.pending.parts) == 0 {
			s.pending = nil
			return nil
		}
		failpoint.Hit(failpoint.BeforeCommit)
		err := s.try(ctx, s.pending)
		if err == nil {
			failpoint.Hit(failpoint.AfterCommit)
			s.settle(s.pending)
			s.pending = nil
			return nil
		}
		if forgotten(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// errForgotten: a group lost this member and let it in again, under another id. What it was assigned before is over, and
// may be another's or may have been meanwhile; but a client that was about to join when that happened keeps its partitions
// and tells nobody, so that only a new one takes up the work from where its group stands.
var errForgotten = errors.New("the group has forgotten this member, to which its partitions were assigned")

func forgotten(err error) bool {
	return errors.Is(err, errForgotten) || errors.Is(err, kerr.UnknownMemberID)
}

// snapshot takes what is done since the last one.
func (s *session) snapshot() *snapshot {
	snap := &snapshot{nonce: rand.Uint64()}
	for _, p := range s.held() {
		p.mu.Lock()
		if p.w.fresh.records > 0 && !p.over {
			snap.add(p)
		}
		p.mu.Unlock()
	}
	return snap
}

// add takes one partition's part. p.mu is held.
func (snap *snapshot) add(p *partition) {
	base, done := p.position()
	meta, fits := encodeProgress(snap.nonce, base, done)
	if !fits {
		return // until its slow records end
	}
	low, frees := p.w.snapshot()
	snap.parts = append(snap.parts, part{p, base, meta, low, frees, p.takeOutputs()})
}

func (snap *snapshot) forgetLost() {
	kept := snap.parts[:0]
	for _, part := range snap.parts {
		if !part.p.isOver() {
			kept = append(kept, part)
		}
	}
	snap.parts = kept
}

// errLost ends a transaction of which a part is being done again.
var errLost = errors.New("a partition was lost while its commit was under way")

// owned is an error unless all parts are of assignments that this process has, as that member of its group.
func (snap *snapshot) owned(member string) error {
	for _, part := range snap.parts {
		switch {
		case part.p.isOver():
			return errLost
		case part.p.member != member:
			return errForgotten
		}
	}
	return nil
}

func (snap *snapshot) hasOutputs() bool {
	for _, part := range snap.parts {
		if part.out.records > 0 {
			return true
		}
	}
	return false
}

// settle frees what a commit that stands has covered.
func (s *session) settle(snap *snapshot) {
	for i := range snap.parts {
		part := &snap.parts[i]
		part.out.free()
		p := part.p
		p.mu.Lock()
		p.w.release(part.low, part.frees)
		p.base = part.base
		p.mu.Unlock()
		s.throttle(p)
	}
}

// try makes one attempt.
func (s *session) try(ctx context.Context, snap *snapshot) error {
	if !snap.hasOutputs() {
		return s.commitOffsets(ctx, snap)
	}
	ended, err := s.transact(ctx, snap)
	if err == nil || ended {
		return err
	}
	// Nobody knows how the transaction ended. A new client of the same transactional id ends it for certain, and then the
	// group's offsets tell which way.
	if e := s.reopenWriter(ctx); e != nil {
		return errors.Join(err, e)
	}
	stands, e := s.stands(ctx, snap)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case stands:
		return nil
	}
	return err
}

// transact produces the outputs and commits the offsets in one transaction. It opens only now, so that it holds readers
// back for as short as can be. ended says that a failed one is known to be aborted.
func (s *session) transact(ctx context.Context, snap *snapshot) (ended bool, err error) {
	if s.doubtful {
		return false, errors.New("an earlier transaction has no known end")
	}
	s.doubtful = true
	if err := s.writer.BeginTransaction(); err != nil {
		return false, fmt.Errorf("begin transaction: %w", err)
	}
	if err = s.produce(ctx, snap); err == nil {
		failpoint.Hit(failpoint.Produced)
		err = s.commitOffsetsInTransaction(ctx, snap)
	}
	if err != nil {
		if e := s.writer.EndTransaction(ctx, kgo.TryAbort); e != nil {
			return false, errors.Join(err, fmt.Errorf("abort: %w", e))
		}
		s.doubtful = false
		return true, err
	}
	failpoint.Hit(failpoint.Offsets)
	if err := s.writer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return false, fmt.Errorf("commit transaction: %w", err)
	}
	s.doubtful = false
	return true, nil
}

func (s *session) produce(ctx context.Context, snap *snapshot) error {
	var first firstError
	promise := func(r *kgo.Record, err error) {
		if err != nil {
			first.set(fmt.Errorf("produce to %s: %w", r.Topic, err))
		}
	}
	for i, now := 0, time.Now(); i < len(snap.parts); i++ {
		snap.parts[i].out.produce(s.k, now, func(r *kgo.Record) { s.writer.Produce(ctx, r, promise) })
	}
	if err := s.writer.Flush(ctx); err != nil {
		first.set(fmt.Errorf("flush: %w", err))
	}
	return first.get()
}

// commitOffsetsInTransaction is TxnOffsetCommit as this member of this generation: a broker refuses it from a member that
// owns its partitions no more, and with it the whole transaction. From version 5 on it joins the group's offsets to the
// transaction by itself (KIP-890).
func (s *session) commitOffsetsInTransaction(ctx context.Context, snap *snapshot) error {
	id, epoch, err := s.writer.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("producer id: %w", err)
	}
	req := kmsg.NewTxnOffsetCommitRequest()
	req.TransactionalID, req.Group = s.transactionalID(), s.groupName()
	req.ProducerID, req.ProducerEpoch = id, epoch
	// Who this is now first, and then whether it still has what it commits: a member that lost its partitions while its
	// outputs were on their way, and got them again, is told from one that has had them all along by nothing else.
	req.MemberID, req.Generation = s.group.GroupMetadata()
	if err := snap.owned(req.MemberID); err != nil {
		return err
	}
	req.InstanceID = &s.k.Instance
	topics := map[string]int{}
	for i := range snap.parts {
		part := &snap.parts[i]
		at, ok := topics[part.p.topic]
		if !ok {
			at = len(req.Topics)
			topics[part.p.topic] = at
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			t.Topic = s.k.Topic(part.p.topic)
			t.TopicID = s.topics[t.Topic].ID
			req.Topics = append(req.Topics, t)
		}
		o := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		o.Partition, o.Offset, o.Metadata = part.p.partition, part.base, &part.meta
		req.Topics[at].Partitions = append(req.Topics[at].Partitions, o)
	}
	resp, err := req.RequestWith(ctx, s.writer)
	if err != nil {
		return fmt.Errorf("commit offsets in transaction: %w", err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("commit offset of partition %d in transaction: %w", p.Partition, err)
			}
		}
	}
	return nil
}

// commitOffsets commits where there is no output to bind the offsets to.
func (s *session) commitOffsets(ctx context.Context, snap *snapshot) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	meta := map[tp]*string{}
	for i := range snap.parts {
		part := &snap.parts[i]
		name := s.k.Topic(part.p.topic)
		if offsets[name] == nil {
			offsets[name] = map[int32]kgo.EpochOffset{}
		}
		offsets[name][part.p.partition] = kgo.EpochOffset{Epoch: -1, Offset: part.base}
		meta[tp{name, part.p.partition}] = &part.meta
	}
	ids := map[[16]byte]string{}
	for _, t := range s.topics {
		ids[t.ID] = t.Topic
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if err := snap.owned(req.MemberID); err != nil {
			return err
		}
		for i := range req.Topics {
			t := &req.Topics[i]
			name := t.Topic
			if name == "" {
				name = ids[t.TopicID]
			}
			for j := range t.Partitions {
				t.Partitions[j].Metadata = meta[tp{name, t.Partitions[j].Partition}]
			}
		}
		return nil
	})
	var first firstError
	s.group.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		first.set(err)
		if resp == nil {
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				first.set(kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	if err := first.get(); err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	return nil
}

// stands reports whether a transaction without an answer took effect: then the group's offsets carry its nonce.
func (s *session) stands(ctx context.Context, snap *snapshot) (bool, error) {
	part := &snap.parts[0]
	offsets, err := kadm.NewClient(s.writer).FetchOffsets(kadm.RequireStable(ctx), s.groupName())
	if err != nil {
		return false, fmt.Errorf("read back offsets: %w", err)
	}
	at, ok := offsets.Lookup(s.k.Topic(part.p.topic), part.p.partition)
	if ok && at.Err != nil {
		return false, fmt.Errorf("read back offsets: %w", at.Err)
	}
	s.doubtful = false
	return ok && at.At == part.base && at.Metadata == part.meta, nil
}
