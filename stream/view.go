package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ViewRecord is one record of a compacted topic. Value is nil for a tombstone.
type ViewRecord struct {
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Timestamp time.Time
}

// View follows a compacted topic from its beginning for somebody who only reads it.
type View struct {
	k     *Kafka
	topic string // full name
	apply func(ViewRecord)
	ready chan struct{}

	mu       sync.Mutex // guards all below
	client   *kgo.Client
	next     map[int32]int64 // offset after the last one applied
	progress chan struct{}   // closed and replaced whenever next grows
}

// lookAgain is how long a view waits for the next record before it looks whether there is one.
const lookAgain = 250 * time.Millisecond

// NewView makes a view; topic is without prefix. apply gets every committed record, in the order of its partition, from
// the goroutine that calls Run. It is called again from the beginning only when the process starts again.
func NewView(k *Kafka, topic string, apply func(ViewRecord)) *View {
	return &View{
		k: k, topic: k.Topic(topic), apply: apply,
		ready: make(chan struct{}), next: map[int32]int64{}, progress: make(chan struct{}),
	}
}

// Ready is closed once the view has applied what was on its topic when Run began.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Run follows the topic until ctx is done, and returns nil then. It waits for a Kafka that is away. Run it once.
func (v *View) Run(ctx context.Context) error {
	client, err := v.k.Client(
		kgo.ConsumeTopics(v.topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
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
	v.mu.Lock()
	v.client = client
	v.advance()
	v.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if v.CatchUp(ctx) == nil {
			close(v.ready)
		}
	})
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			if !retriable(e.Err) {
				v.k.Log.Warn("view cannot read its topic", "topic", e.Topic, "partition", e.Partition, "err", e.Err)
			}
		}
		fetches.EachPartition(v.take)
	}
}

func (v *View) take(f kgo.FetchTopicPartition) {
	if len(f.Records) == 0 {
		return
	}
	for _, r := range f.Records {
		if !r.Attrs.IsControl() {
			v.apply(ViewRecord{r.Partition, r.Offset, r.Key, r.Value, r.Timestamp})
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

// CatchUp waits until the view has applied everything that was on its topic when it was called, transactions that were
// open then included. It fails only when ctx ends.
func (v *View) CatchUp(ctx context.Context) error {
	client, err := v.started(ctx)
	if err != nil {
		return err
	}
	ends, err := v.ends(ctx, kadm.NewClient(client))
	if err != nil {
		return err
	}
	for {
		v.mu.Lock()
		progress, behind := v.progress, false
		for partition, end := range ends {
			behind = behind || v.next[partition] < end
		}
		v.mu.Unlock()
		if !behind {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-progress:
		case <-time.After(lookAgain):
			v.skip(ctx, client, ends)
		}
	}
}

// skip passes over what no reader is given: see NothingCommitted. What goes wrong here is tried again.
func (v *View) skip(ctx context.Context, client *kgo.Client, ends map[int32]int64) {
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
		v.next[partition] = max(v.next[partition], end)
		v.advance()
		v.mu.Unlock()
	}
}

func (v *View) started(ctx context.Context) (*kgo.Client, error) {
	for {
		v.mu.Lock()
		client, progress := v.client, v.progress
		v.mu.Unlock()
		if client != nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-progress:
		}
	}
}

// ends asks for the end of each partition that holds anything.
func (v *View) ends(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, maxBackoff) {
		starts, ends, err := offsets(ctx, adm, v.topic)
		if err == nil {
			v.mu.Lock()
			defer v.mu.Unlock()
			for partition, start := range starts {
				v.next[partition] = max(v.next[partition], start)
			}
			return ends, nil
		}
		if ctx.Err() == nil {
			if errors.Is(err, kerr.UnknownTopicOrPartition) {
				v.k.Log.Warn("a topic is missing; waiting for it: run belfry topics apply", "topic", v.topic)
			} else {
				v.k.Log.Warn("view cannot find the end of its topic", "topic", v.topic, "err", err)
			}
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
