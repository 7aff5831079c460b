package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ViewRecord is one record of a compacted topic. Value is nil for a tombstone.
type ViewRecord struct {
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Timestamp time.Time
	Headers   []kgo.RecordHeader
}

// View follows a compacted topic from its beginning for somebody who only reads it. It passes over records that lie on a
// partition that is not their key's: another's tombstone must not remove what is there, nor an older copy hide it.
type View struct {
	k     *Kafka
	topic string // full name
	keys  *spread
	apply func(ViewRecord)
	ready chan struct{}

	// missing and refused are that its topic is not there, and that it may not be read.
	missing, refused trouble
	passing          bool // it reads to an end and is done: nobody asks how it is
	undecided        bool // it takes what is in transactions, however they end

	mu       sync.Mutex // guards all below
	client   *kgo.Client
	life     int             // how many times the topic was another
	next     map[int32]int64 // offset after the last one applied
	progress chan struct{}   // closed and replaced whenever next grows
}

// lookAgain is how long a view waits for the next record before it looks whether there is one.
const lookAgain = 250 * time.Millisecond

// NewView makes a view; topic is without prefix. apply gets every committed record, in the order of its partition, from
// the goroutine that calls Run. It is called again from the beginning only when the process starts again, or the topic was
// deleted and made again: then for what is on the new one, and nothing takes back what the old one held.
func NewView(k *Kafka, topic string, apply func(ViewRecord)) *View {
	v := newRawView(k, topic, apply)
	v.keys = k.spread(topic)
	return v
}

// newRawView makes a view that takes records wherever they lie.
func newRawView(k *Kafka, topic string, apply func(ViewRecord)) *View {
	v := &View{
		k: k, topic: k.Topic(topic), apply: apply,
		ready: make(chan struct{}), next: map[int32]int64{}, progress: make(chan struct{}),
	}
	v.missing.fails, v.missing.works = "a view waits for its topic", "the topic of a view is there again"
	v.refused.fails, v.refused.works = "a view cannot read its topic", "a view reads its topic again"
	return v
}

// Ready is closed once the view has applied what was on its topic when Run began.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Health is why the view does not show what is on its topic, or nil: the topic cannot be read, or has not been read to its end.
// It is safe for concurrent use.
func (v *View) Health() error {
	for _, t := range []*trouble{&v.missing, &v.refused} {
		if since, err := t.lasts(); since >= toldAfter {
			return fmt.Errorf("view of %s: %w", v.topic, err)
		}
	}
	select {
	case <-v.ready:
		return nil
	default:
		return fmt.Errorf("view of %s: it is still being read", v.topic)
	}
}

// Run follows the topic until ctx is done, and returns nil then. It waits for a Kafka or a topic that is away, and begins anew with
// one that was deleted and made again. Run it once.
func (v *View) Run(ctx context.Context) error {
	if !v.passing {
		defer v.k.running(v)()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if v.CatchUp(ctx) == nil {
			close(v.ready)
		}
	})
	for {
		err := v.follow(ctx)
		if !errors.Is(err, errRemade) {
			return err
		}
		v.k.Log.Warn("a view begins anew", "err", err)
	}
}

// follow reads one life of the topic. Its error is errRemade, or that no client can be made.
func (v *View) follow(parent context.Context) error {
	isolation := kgo.ReadCommitted()
	if v.undecided {
		isolation = kgo.ReadUncommitted()
	}
	client, err := v.k.Client(
		kgo.ConsumeTopics(v.topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(isolation),
		kgo.FetchMaxBytes(4<<20),
		// What CatchUp asks comes behind the fetch that is under way.
		kgo.FetchMaxWait(lookAgain),
		// Transaction markers take offsets too, and are how CatchUp sees that it is at the end.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return fmt.Errorf("view of %s: %w", v.topic, err)
	}
	defer client.Close()
	v.begin(client)
	ctx, stop := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	wg.Go(func() {
		if err := (topicIDs{v.topic: {}}).stay(ctx, v.k, v.k.Log, client, &v.missing, &v.refused); err != nil {
			stop(err)
		}
	})
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			if parent.Err() != nil { // asked second: it ends before ctx does
				return nil
			}
			return context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			if !retriable(e.Err) {
				v.refused.note(v.k, v.k.Log, fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, Explain(e.Err)))
			}
		}
		fetches.EachPartition(v.take)
		rest(ctx, fetches)
	}
}

// begin takes a client for the topic's next life.
func (v *View) begin(client *kgo.Client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		v.life++
		clear(v.next)
	}
	v.client = client
	v.advance()
}

func (v *View) take(f kgo.FetchTopicPartition) {
	if len(f.Records) == 0 {
		return
	}
	for _, r := range f.Records {
		if !r.Attrs.IsControl() && !v.keys.strays(r.Key, r.Partition) {
			v.apply(ViewRecord{r.Partition, r.Offset, r.Key, r.Value, r.Timestamp, r.Headers})
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next[f.Partition] = f.Records[len(f.Records)-1].Offset + 1
	v.advance()
}

// advance wakes those who wait in CatchUp. v.mu is held.
func (v *View) advance() {
	close(v.progress)
	v.progress = make(chan struct{})
}

// scan calls each with every record that was committed on a topic when it was called, wherever it lies, and some that came
// after. topic is without prefix. It waits for a Kafka that is away.
func scan(ctx context.Context, k *Kafka, topic string, each func(ViewRecord)) error {
	v := newRawView(k, topic, each)
	v.passing = true
	return v.during(ctx, v.CatchUp)
}

// during runs the view for as long as do takes.
func (v *View) during(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- v.Run(ctx)
		stop() // without it nobody catches up
	}()
	err := do(ctx)
	stop()
	if err := errors.Join(<-ended, err); err != nil {
		return fmt.Errorf("read %s: %w", v.topic, err)
	}
	return nil
}

// CatchUp waits until the view has applied everything that was on its topic when it was called, transactions that were
// open then included. It fails only when ctx ends.
func (v *View) CatchUp(ctx context.Context) error {
	for {
		client, life, err := v.started(ctx)
		if err != nil {
			return err
		}
		ends, err := v.ends(ctx, life, kadm.NewClient(client))
		if err != nil {
			return err
		}
		if caught, err := v.reach(ctx, client, life, ends); caught || err != nil {
			return err
		}
	}
}

// reach waits until the view is at ends. It is false when they are of a life of the topic that is over.
func (v *View) reach(ctx context.Context, client *kgo.Client, life int, ends map[int32]int64) (bool, error) {
	for {
		v.mu.Lock()
		progress, behind, over := v.progress, false, v.life != life
		for partition, end := range ends {
			behind = behind || v.next[partition] < end
		}
		v.mu.Unlock()
		if over || !behind {
			return !over, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-progress:
		case <-time.After(lookAgain):
			v.skip(ctx, client, life, ends)
		}
	}
}

// positions are the offsets after the last records that were applied, of the partitions that hold anything.
func (v *View) positions() map[int32]int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.next)
}

// skip passes over what no reader is given: see NothingCommitted. What goes wrong here is tried again.
func (v *View) skip(ctx context.Context, client *kgo.Client, life int, ends map[int32]int64) {
	for partition, end := range ends {
		v.mu.Lock()
		from := v.next[partition]
		v.mu.Unlock()
		if from >= end {
			continue
		}
		if nothing, err := NothingCommitted(ctx, client, v.topic, partition, from, end); err != nil || !nothing {
			continue
		}
		v.mu.Lock()
		if v.life == life {
			v.next[partition] = max(v.next[partition], end)
			v.advance()
		}
		v.mu.Unlock()
	}
}

func (v *View) started(ctx context.Context) (client *kgo.Client, life int, err error) {
	for {
		v.mu.Lock()
		client, life, progress := v.client, v.life, v.progress
		v.mu.Unlock()
		if client != nil {
			return client, life, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		case <-progress:
		}
	}
}

// ends asks for the end of each partition that holds anything. There are none when the topic's life is over.
func (v *View) ends(ctx context.Context, life int, adm *kadm.Client) (map[int32]int64, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, maxBackoff) {
		starts, ends, err := offsets(ctx, adm, v.topic)
		v.mu.Lock()
		over := v.life != life
		if err == nil && !over {
			for partition, start := range starts {
				v.next[partition] = max(v.next[partition], start)
			}
		}
		v.mu.Unlock()
		if over || err == nil {
			return ends, nil
		}
		if ctx.Err() == nil {
			v.missing.note(v.k, v.k.Log, fmt.Errorf("find the end of %s: %w", v.topic, Explain(err)))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// offsets finds where each partition that holds anything begins and ends.
func offsets(ctx context.Context, adm *kadm.Client, topic string) (starts, ends map[int32]int64, err error) {
	first, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	last, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = last.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	starts, ends = map[int32]int64{}, map[int32]int64{}
	last.Each(func(end kadm.ListedOffset) {
		if start, ok := first.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			starts[end.Partition], ends[end.Partition] = start.Offset, end.Offset
		}
	})
	return starts, ends, nil
}
