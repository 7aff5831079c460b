package letters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// idle is how long a reader waits for records before it looks whether retention took what it waits for.
const idle = time.Second

// clockSlack is how far clocks may be apart between who notes a time in a record and who writes the record.
const clockSlack = time.Minute

// Span is what lies on topics now, a range for each partition that holds anything. Topics are without prefix. With since,
// Unix ms and not 0, a range begins with the first record written then or later, or a little before.
func Span(ctx context.Context, k *stream.Kafka, since int64, topics ...string) ([]*pb.TopicRange, error) {
	client, err := k.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	full := make([]string, len(topics))
	for i, t := range topics {
		full[i] = k.Topic(t)
	}
	// High watermarks, not the ends of what is committed: a transaction that is open now has its place in the range, and
	// is waited for.
	ends, err := listed(adm.ListEndOffsets(ctx, full...))
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	starts, err := listed(adm.ListStartOffsets(ctx, full...))
	if err == nil && since != 0 {
		starts, err = listed(adm.ListOffsetsAfterMilli(ctx, max(1, since-clockSlack.Milliseconds()), full...))
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	var ranges []*pb.TopicRange
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			ranges = append(ranges, &pb.TopicRange{
				Topic: strings.TrimPrefix(end.Topic, k.Prefix), Partition: end.Partition, Next: start.Offset, End: end.Offset,
			})
		}
	})
	slices.SortFunc(ranges, compareRanges)
	return ranges, nil
}

func compareRanges(a, b *pb.TopicRange) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func listed(l kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err == nil {
		err = l.Error()
	}
	return l, err
}

type partition struct {
	topic  string // without prefix
	number int32
}

// Reader reads the committed records of ranges, each once, and those of a partition in order.
type Reader struct {
	k      *stream.Kafka
	client *kgo.Client
	// open are the ranges that are not read to their ends.
	open map[partition]*pb.TopicRange
}

// NewReader opens a reader. It must be closed.
func NewReader(k *stream.Kafka, ranges []*pb.TopicRange) (*Reader, error) {
	r := &Reader{k: k, open: map[partition]*pb.TopicRange{}}
	from := map[string]map[int32]kgo.Offset{}
	for _, one := range ranges {
		if one.Next >= one.End {
			continue
		}
		r.open[partition{one.Topic, one.Partition}] = proto.CloneOf(one)
		name := k.Topic(one.Topic)
		if from[name] == nil {
			from[name] = map[int32]kgo.Offset{}
		}
		from[name][one.Partition] = kgo.NewOffset().At(one.Next)
	}
	if len(from) == 0 {
		return r, nil
	}
	var err error
	r.client, err = k.Client(
		kgo.ConsumePartitions(from),
		// What retention removed meanwhile cannot be read; what is left can.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(4<<20),
		kgo.FetchMaxWait(250*time.Millisecond),
		// A transaction's marker may be what comes last.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Close ends the reader.
func (r *Reader) Close() {
	if r.client != nil {
		r.client.Close()
	}
}

// Done tells that all is read.
func (r *Reader) Done() bool { return len(r.open) == 0 }

// Left is what is not read yet.
func (r *Reader) Left() []*pb.TopicRange {
	var left []*pb.TopicRange
	for _, one := range r.open {
		left = append(left, proto.CloneOf(one))
	}
	slices.SortFunc(left, compareRanges)
	return left
}

// Poll returns the next records, at most so many. It returns none when none came within a second.
func (r *Reader) Poll(ctx context.Context, most int) ([]*kgo.Record, error) {
	if r.Done() {
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, idle)
	fetches := r.client.PollRecords(wait, most)
	cancel()
	var records []*kgo.Record
	for record := range fetches.RecordsAll() {
		if r.take(record) {
			records = append(records, record)
		}
	}
	if fetches.NumRecords() > 0 {
		return records, nil // an error beside them comes again
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, e := range fetches.Errors() {
		if !kerr.IsRetriable(e.Err) && !errors.Is(e.Err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("read %s: %w", e.Topic, e.Err)
		}
	}
	return nil, r.skip(ctx)
}

// take moves a position, and tells whether the record is one of the range.
func (r *Reader) take(record *kgo.Record) bool {
	at := partition{strings.TrimPrefix(record.Topic, r.k.Prefix), record.Partition}
	one := r.open[at]
	if one == nil || record.Offset < one.Next {
		return false
	}
	within := record.Offset < one.End
	if one.Next = record.Offset + 1; one.Next >= one.End {
		r.end(at)
	}
	return within && !record.Attrs.IsControl()
}

func (r *Reader) end(at partition) {
	delete(r.open, at)
	r.client.PauseFetchPartitions(map[string][]int32{r.k.Topic(at.topic): {at.number}})
}

// skip passes over what retention removed and what was aborted: nothing would ever come of it.
func (r *Reader) skip(ctx context.Context) error {
	var topics []string
	for at := range r.open {
		if name := r.k.Topic(at.topic); !slices.Contains(topics, name) {
			topics = append(topics, name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*idle)
	defer cancel()
	starts, err := listed(kadm.NewClient(r.client).ListStartOffsets(ctx, topics...))
	if err != nil {
		return context.Cause(ctx) // Kafka is away: the next poll asks again
	}
	for at, one := range r.open {
		if start, ok := starts.Lookup(r.k.Topic(at.topic), at.number); ok && start.Offset > one.Next {
			if one.Next = start.Offset; one.Next >= one.End {
				r.end(at)
				continue
			}
		}
		nothing, err := stream.NothingCommitted(ctx, r.client, r.k.Topic(at.topic), at.number, one.Next, one.End)
		if err != nil {
			return context.Cause(ctx)
		}
		if nothing {
			r.end(at)
		}
	}
	return nil
}

// Scan calls each with every record of ranges, in the order of their partitions, until it returns false.
func Scan(ctx context.Context, k *stream.Kafka, ranges []*pb.TopicRange, each func(*kgo.Record) bool) error {
	r, err := NewReader(k, ranges)
	if err != nil {
		return err
	}
	defer r.Close()
	for !r.Done() {
		records, err := r.Poll(ctx, pollRecords)
		if err != nil {
			return err
		}
		for _, record := range records {
			if !each(record) {
				return nil
			}
		}
	}
	return nil
}

// pollRecords bounds what is looked at before a context is.
const pollRecords = 5000
