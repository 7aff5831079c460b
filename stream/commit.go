package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
)

// snapshot is what one commit makes true: outputs, and for each partition where its group stands. It is tried until it
// is known to stand, or its partitions are another's.
type snapshot struct {
	nonce uint64
	parts []*part
}

type part struct {
	p     *partition
	base  int64
	meta  string
	low   uint64
	frees amount
	out   outputs
}

// committer commits every 250 ms, and sooner when much waits. Where commits fail it tries on, ever more seldom, and the session
// stays: what was done and could not be committed is kept, and not done again.
func (s *session) committer() {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.full:
		}
		if err := s.commitDue(); forgotten(err) && s.ctx.Err() == nil {
			s.fail(err)
			return
		}
	}
}

// commitDue commits unless one that failed is to be tried only later.
func (s *session) commitDue() error {
	s.forgetKept(time.Now())
	s.tellUnread(time.Now())
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if time.Now().Before(s.again) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, transactionTimeout)
	defer cancel()
	return s.commit(ctx)
}

// commitWithin tries until ctx ends to commit all that is done by now: a snapshot that was refused before comes first, and lacks
// what has been done since. commitMu is held.
func (s *session) commitWithin(ctx context.Context) error {
	for {
		old := s.pending != nil
		err := s.commit(ctx)
		if err == nil && old {
			continue
		}
		if err == nil || forgotten(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Until(s.again)):
		}
	}
}

// commit makes everything that is done now true on Kafka. When it fails its snapshot is kept and comes first the next
// time: nothing done is forgotten, nothing is produced twice. commitMu is held.
func (s *session) commit(ctx context.Context) error {
	if s.pending == nil {
		s.pending = s.snapshot()
	}
	s.pending.forgetLost()
	if len(s.pending.parts) > 0 {
		failpoint.Hit(failpoint.BeforeCommit)
		if err := s.try(ctx, s.pending); err != nil {
			s.refused(err)
			return err
		}
		failpoint.Hit(failpoint.AfterCommit)
		s.settle(s.pending)
	}
	s.pending, s.suspects, s.again, s.pause = nil, nil, time.Time{}, 0
	s.commits.over(s.log)
	return nil
}

// refused notes a commit that failed. Its retry comes later with each failure: what writes in vain fills topics with aborted
// records. commitMu is held.
func (s *session) refused(err error) {
	s.pause = min(max(firstPause, 2*s.pause), maxBackoff)
	s.again = time.Now().Add(s.pause)
	if s.ctx.Err() == nil && !forgotten(err) {
		s.commits.note(s.k, s.log, Explain(err))
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
		if !p.over && (p.w.fresh.records > 0 || p.w.passed(p.base)) {
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
	p.tried = &part{p, base, meta, low, frees, p.takeOutputs()}
	snap.parts = append(snap.parts, p.tried)
}

func (snap *snapshot) forgetLost() {
	kept := snap.parts[:0]
	for _, part := range snap.parts {
		if !part.p.isGone() {
			kept = append(kept, part)
		}
	}
	snap.parts = kept
}

// errLost ends a transaction of which a part is being done again.
var errLost = errors.New("a partition was lost while its commit was under way")

// owned is an error unless all parts are of assignments that this process has, as that member of its group.
func owned(parts []*part, member string) error {
	for _, part := range parts {
		switch {
		case part.p.isGone():
			return errLost
		case part.p.member != member:
			return errForgotten
		}
	}
	return nil
}

// first is any one of the outputs. There is one.
func (snap *snapshot) first(k *Kafka) *kgo.Record {
	for _, part := range snap.parts {
		if r := part.out.first(k); r != nil {
			return r
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
	for _, part := range snap.parts {
		p := part.p
		p.mu.Lock()
		p.settle(part)
		p.mu.Unlock()
		s.throttle(p)
	}
}
