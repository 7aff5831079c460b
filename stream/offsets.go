package stream

import (
	"context"
	"fmt"
	"iter"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A coordinator writes the offsets of one request as one batch of the offsets topic, which takes 1 MiB. A request that is over
// it is refused whole, as UNKNOWN_SERVER_ERROR, so what a process with many partitions commits goes in several.
const (
	portionBytes = 256 << 10
	offsetBytes  = 512 // what an offset takes beside its metadata, at most: the names of its group and topic are in it
)

// portions cuts a snapshot into what one request may have.
func (snap *snapshot) portions() iter.Seq[[]*part] {
	return func(yield func([]*part) bool) {
		begin, size := 0, 0
		for i := range snap.parts {
			of := len(snap.parts[i].meta) + offsetBytes
			if size+of > portionBytes && i > begin {
				if !yield(snap.parts[begin:i]) {
					return
				}
				begin, size = i, 0
			}
			size += of
		}
		if begin < len(snap.parts) {
			yield(snap.parts[begin:])
		}
	}
}

// commitOffsetsInTransaction is TxnOffsetCommit as this member of this generation: a broker refuses it from a member that
// owns its partitions no more, and with it the whole transaction. From version 5 on it joins the group's offsets to the
// transaction by itself (KIP-890).
func (s *session) commitOffsetsInTransaction(ctx context.Context, snap *snapshot) error {
	for parts := range snap.portions() {
		if err := s.commitPortion(ctx, parts); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) commitPortion(ctx context.Context, parts []*part) error {
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
	if err := owned(parts, req.MemberID); err != nil {
		return err
	}
	req.InstanceID = &s.k.Instance
	topics := map[string]int{}
	for _, part := range parts {
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
				return fmt.Errorf("commit offset of %s/%d in transaction: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

// commitOffsets commits where there is no output to bind the offsets to.
func (s *session) commitOffsets(ctx context.Context, snap *snapshot) error {
	for parts := range snap.portions() {
		if err := s.commitPlainly(ctx, parts); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) commitPlainly(ctx context.Context, parts []*part) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	meta := map[tp]*string{}
	for _, part := range parts {
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
		if err := owned(parts, req.MemberID); err != nil {
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
	part := snap.parts[0]
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
