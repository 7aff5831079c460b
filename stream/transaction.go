package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
)

// try makes one attempt. After one that failed it first tries with little: see probe.
func (s *session) try(ctx context.Context, snap *snapshot) error {
	if !snap.hasOutputs() {
		return s.commitOffsets(ctx, snap)
	}
	if s.doubtful {
		if stands, err := s.resolve(ctx, snap); err != nil || stands {
			return err
		}
	}
	var ended bool
	var err error
	if len(s.suspects) > 0 {
		ended, err = s.transact(ctx, snap, s.probe, kgo.TryAbort)
	}
	if err == nil {
		ended, err = s.transact(ctx, snap, s.produce, kgo.TryCommit)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, kerr.UnknownTopicID) {
		s.doubtful = true // of the client: it will not know a topic that was made again, and another one will
	}
	if len(s.suspects) == 0 {
		s.suspects = []*kgo.Record{snap.first(s.k)}
	}
	if ended {
		return err
	}
	switch stands, e := s.resolve(ctx, snap); {
	case e != nil:
		return errors.Join(err, e)
	case stands:
		return nil
	}
	return err
}

// resolve finds out what became of a transaction whose end nobody knows. A new client of the same transactional id ends it for
// certain, and then the group's offsets tell which way.
func (s *session) resolve(ctx context.Context, snap *snapshot) (stands bool, err error) {
	if err := s.reopenWriter(ctx); err != nil {
		return false, err
	}
	return s.stands(ctx, snap)
}

// transact produces and commits the offsets in one transaction, or aborts both. It opens only now, so that it holds readers
// back for as short as can be. ended says that a failed one is known to be aborted; until then
// s.doubtful is true.
func (s *session) transact(
	ctx context.Context, snap *snapshot, produce func(context.Context, *snapshot) error, end kgo.TransactionEndTry,
) (ended bool, err error) {
	s.doubtful = true
	if err := s.writer.BeginTransaction(); err != nil {
		return false, fmt.Errorf("begin transaction: %w", err)
	}
	if err = produce(ctx, snap); err == nil {
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
	if err := s.writer.EndTransaction(ctx, end); err != nil {
		return false, fmt.Errorf("end transaction: %w", err)
	}
	s.doubtful = false
	return true, nil
}

// produce writes the outputs.
func (s *session) produce(ctx context.Context, snap *snapshot) error {
	now := time.Now()
	refused, err := s.writeAll(ctx, func(yield func(*kgo.Record)) {
		for _, part := range snap.parts {
			part.out.produce(s.k, now, yield)
		}
	})
	if len(refused) > 0 {
		s.suspects = refused
	}
	return err
}

// probe writes what was refused last, one record a partition, in a transaction that is aborted: nobody is given it, and what is
// refused costs a few records rather than all of them.
func (s *session) probe(ctx context.Context, _ *snapshot) error {
	_, err := s.writeAll(ctx, func(yield func(*kgo.Record)) {
		for _, r := range s.suspects {
			yield(&kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
	})
	return err
}

// writeAll writes records, and returns those that were refused, one a partition, and why. Each record's own fate is looked at: a
// client's transaction ends without an error, and with nothing in it, where all of them were refused.
func (s *session) writeAll(ctx context.Context, records func(yield func(*kgo.Record))) ([]*kgo.Record, error) {
	var failed failures
	records(func(r *kgo.Record) { s.writer.Produce(ctx, r, failed.note) })
	if err := s.writer.Flush(ctx); err != nil {
		failed.note(nil, fmt.Errorf("flush: %w", err))
	}
	return failed.get()
}
