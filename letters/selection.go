package letters

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Verdict is what becomes of something that a filter means.
type Verdict int

const (
	// Send it again.
	Send Verdict = iota
	// Expired stays expired.
	Expired
	// Replayed was sent again before.
	Replayed
	// Unreadable cannot be sent: it holds no whole delivery.
	Unreadable
)

// Found is something that a replay's filter means.
type Found struct {
	Facts
	Verdict Verdict
	// Delivery as it is to be sent; nil when unreadable.
	Delivery *pb.Delivery
	// Original is the id of the past delivery that Delivery, of source send, repeats under an id of its own.
	Original []byte
}

// Begin says what a replay is to read on a platform: everything that is there now and may be meant. A later Select goes on
// from there, or from any progress after it.
func Begin(ctx context.Context, k *stream.Kafka, r *pb.Replay, p pb.Platform, now time.Time) (*pb.ReplayProgress, error) {
	progress := &pb.ReplayProgress{
		State: pb.ReplayState_REPLAY_STATE_RUNNING, StartedAt: now.UnixMilli(), At: now.UnixMilli(),
	}
	since := r.GetFilter().GetSince()
	var err error
	if r.GetSource() == pb.ReplaySource_REPLAY_SOURCE_DEAD {
		progress.Ranges, err = Span(ctx, k, since, schemas.TopicDead(p))
	} else {
		var topics []string
		for _, c := range schemas.Classes {
			if oneOf(r.GetFilter().GetClasses(), c) {
				topics = append(topics, schemas.TopicSend(p, c))
			}
		}
		// What ended since then may have been written at any time before.
		if progress.Ranges, err = Span(ctx, k, 0, topics...); err == nil {
			progress.Results, err = Span(ctx, k, since, schemas.TopicResults(p))
		}
	}
	if err != nil {
		return nil, err
	}
	progress.Ranges = clip(progress.Ranges, r.GetFilter().GetOffsets())
	return progress, nil
}

// clip narrows ranges to those asked for, if any are. Several of one partition are read as one; the filter parts them.
func clip(ranges, asked []*pb.TopicRange) []*pb.TopicRange {
	if len(asked) == 0 {
		return ranges
	}
	return slices.DeleteFunc(ranges, func(one *pb.TopicRange) bool {
		first, end := one.End, one.Next
		for _, a := range asked {
			if a.Topic == one.Topic && a.Partition == one.Partition {
				first, end = min(first, a.Next), max(end, a.End)
			}
		}
		one.Next, one.End = max(one.Next, first), min(one.End, end)
		return one.Next >= one.End
	})
}

// Selection finds what a replay means on one platform, once each.
type Selection struct {
	*Reader
	replay   *pb.Replay
	platform pb.Platform
	history  *History
	// ends are, of source send, how the deliveries ended that are meant and not found yet.
	ends  map[[16]byte]uint16
	words []word
	// timeless is the filter without its times: when a delivery ended is looked at with its outcome, and its record has
	// only the time at which it was written.
	timeless *pb.ReplayFilter
	now      func() time.Time
}

// word is an outcome's name and its code. There are few, so that a delivery's needs two bytes.
type word struct{ reason, code string }

// Select makes a selection from a progress on. It must be closed. Of source send it first reads how deliveries ended,
// which may take a while, and fails with ErrTooMany or ErrFull.
func Select(ctx context.Context, k *stream.Kafka, r *pb.Replay, p pb.Platform, from *pb.ReplayProgress, h *History, now func() time.Time) (*Selection, error) {
	s := &Selection{replay: r, platform: p, history: h, now: now}
	if r.GetSource() == pb.ReplaySource_REPLAY_SOURCE_SEND {
		if h.Full() {
			return nil, ErrFull
		}
		s.timeless = &pb.ReplayFilter{}
		proto.Merge(s.timeless, r.GetFilter())
		s.timeless.Since, s.timeless.Until = 0, 0
		if err := s.readEnds(ctx, k, from.GetResults()); err != nil {
			return nil, err
		}
	}
	var err error
	if s.Reader, err = NewReader(k, from.GetRanges()); err != nil {
		return nil, err
	}
	return s, nil
}

// readEnds finds which deliveries were rejected or, if they are meant too, accepted.
func (s *Selection) readEnds(ctx context.Context, k *stream.Kafka, ranges []*pb.TopicRange) error {
	s.ends = map[[16]byte]uint16{}
	known := map[word]uint16{}
	var failed error
	err := Scan(ctx, k, ranges, func(r *kgo.Record) bool {
		key := schemas.SplitKey(r.Key, 2)
		if len(key) != 2 || key[0] != s.replay.GetApp() || !oneOf(s.replay.GetFilter().GetRuns(), key[1]) {
			return true
		}
		batch := &pb.ResultBatch{}
		if proto.Unmarshal(r.Value, batch) != nil {
			return true // the ledger buries it
		}
		for _, one := range batch.GetResults() {
			s.noteEnd(one, known)
		}
		if len(s.ends) > maxDeliveries || len(s.words) > 1<<15 {
			failed = ErrTooMany
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return err
}

func (s *Selection) noteEnd(r *pb.Result, known map[word]uint16) {
	w := word{code: r.GetCode()}
	switch r.GetOutcome() {
	case pb.Outcome_OUTCOME_ACCEPTED:
		if !s.replay.GetIncludeAccepted() {
			return
		}
		w.reason = "accepted"
	case pb.Outcome_OUTCOME_REJECTED:
		w.reason = "rejected"
	default:
		return // dead letters are the other source; the rest is over for good, or still on its way
	}
	if len(r.GetDelivery()) != 16 || !ended(s.replay.GetFilter(), w.reason, w.code, r.GetAt()) {
		return
	}
	n, seen := known[w]
	if !seen {
		n = uint16(len(s.words))
		known[w] = n
		s.words = append(s.words, w)
	}
	s.ends[[16]byte(r.GetDelivery())] = n
}

// Done tells that nothing more can be found.
func (s *Selection) Done() bool { return s.Reader.Done() || s.ends != nil && len(s.ends) == 0 }

// Next reads some records, at most so many, and returns those of them that are meant, and how many it read.
func (s *Selection) Next(ctx context.Context, most int) (found []*Found, read int, err error) {
	if s.Done() {
		return nil, 0, nil
	}
	records, err := s.Poll(ctx, most)
	if err != nil {
		return nil, 0, fmt.Errorf("read what may be sent again: %w", err)
	}
	for _, r := range records {
		look := s.letter
		if s.ends != nil {
			look = s.past
		}
		if f := look(r); f != nil {
			if f.Verdict == Send && s.history.Has(f) {
				f.Verdict = Replayed
			}
			found = append(found, f)
		}
	}
	return found, len(records), nil
}

// letter looks at a dead letter. Nil means that it is not meant.
func (s *Selection) letter(r *kgo.Record) *Found {
	l := Read(schemas.TopicDead(s.platform), r)
	f := &Found{Facts: l.Facts()}
	if l.App() != s.replay.GetApp() || !Match(s.replay.GetFilter(), f.Facts) {
		return nil
	}
	if !l.Sendable() {
		f.Verdict = Unreadable
		return f
	}
	f.Delivery = l.Delivery
	s.renew(f)
	return f
}

// past looks at a delivery that lies on a send topic, perhaps for the second time.
func (s *Selection) past(r *kgo.Record) *Found {
	id := idOf(r.Value)
	if len(id) != 16 {
		return nil
	}
	n, meant := s.ends[[16]byte(id)]
	if !meant {
		return nil
	}
	d := &pb.Delivery{}
	if proto.Unmarshal(r.Value, d) != nil || !sendable(d, s.platform) || d.App != s.replay.GetApp() {
		return nil
	}
	f := &Found{Delivery: d, Original: d.Id, Facts: Facts{
		Platform: s.platform, Class: d.Class, Run: d.Run, Origin: Origin(d.Target),
		Reason: s.words[n].reason, Code: s.words[n].code, At: r.Timestamp.UnixMilli(),
		Topic: schemas.TopicSend(s.platform, d.Class), Partition: r.Partition, Offset: r.Offset,
	}}
	if !Match(s.timeless, f.Facts) {
		return nil
	}
	delete(s.ends, [16]byte(id))
	again := schemas.DeliveryID(d.App, d.Run+"/"+hex.EncodeToString(d.Id), d.Device, 0)
	d.Id = again[:]
	s.renew(f)
	return f
}

// renew makes the delivery one that was never tried.
func (s *Selection) renew(f *Found) {
	d := f.Delivery
	d.Attempt, d.DueAt, d.EarlyAt, d.FirstAttemptAt, d.Parked = 0, 0, 0, 0, false
	// A word in this field also tells lanes that the delivery has been counted as planned.
	d.LastCode = "replay"
	d.Replay = s.replay.GetId()
	if d.ExpiresAt <= s.now().UnixMilli() {
		f.Verdict = Expired
	}
}

// idOf reads the id out of a delivery's record without the rest: most of a send topic is not meant.
func idOf(value []byte) []byte {
	for len(value) > 0 {
		field, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return nil
		}
		if value = value[n:]; field == 1 && kind == protowire.BytesType {
			id, _ := protowire.ConsumeBytes(value)
			return id
		}
		if n = protowire.ConsumeFieldValue(field, kind, value); n < 0 {
			return nil
		}
		value = value[n:]
	}
	return nil
}
