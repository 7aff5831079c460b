package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const records = 3000

func fill(t testing.TB, k *stream.Kafka, topic string, n int) {
	t.Helper()
	streamtest.Produce(t, k, numbered(topic, 0, n)...)
}

// numbered are the records from one number up to another.
func numbered(topic string, from, to int) (records []*kgo.Record) {
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Append(nil, "value ", i)})
	}
	return records
}

// readOnce reads the committed records of a topic until n distinct keys have come, and fails on a repeated one.
func readOnce(t testing.TB, k *stream.Kafka, topic string, n int) {
	t.Helper()
	seen := map[string]bool{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if seen[string(r.Key)] {
			t.Fatalf("%s has key %s twice", topic, r.Key)
		}
		seen[string(r.Key)] = true
		return len(seen) < n
	}, topic)
}

func pipe(t testing.TB) *stream.Kafka {
	return streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 4}, streamtest.Topic{Name: "out", Partitions: 3})
}

// start runs a consumer by hand, for tests that stop it in the middle.
func start(t testing.TB, k *stream.Kafka, instance string, handle func(context.Context, []*stream.Task)) (stop func()) {
	mine := *k
	mine.Instance = instance
	c := stream.NewConsumer(&mine, stream.Options{Name: "copy", Topics: []string{"in"}, Records: 256, Handle: handle})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// handled counts how often each record was handled. It is safe for concurrent use.
type handled struct {
	mu    sync.Mutex
	times map[string]int
}

func (h *handled) note(task *stream.Task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.times == nil {
		h.times = map[string]int{}
	}
	h.times[string(task.Key)]++
}

// records is how many there were.
func (h *handled) records() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.times)
}

// atMost fails where one was handled more often.
func (h *handled) atMost(t *testing.T, most int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, n := range h.times {
		if n > most {
			t.Errorf("record %s was handled %d times", key, n)
		}
	}
}

func copyOf(task *stream.Task) stream.Output {
	return stream.Output{Topic: "out", Key: task.Key, Value: task.Value}
}

func TestEveryRecordEndsOnceWithItsOutput(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", records)
	start(t, k, "a", copyLater)
	readOnce(t, k, "out", records)
}

// TestRebalanceStorm: members come and go in good order while tasks end late. Every record is handled once: a partition
// is let go only with what is in flight ended and committed.
func TestRebalanceStorm(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", records)
	var did handled
	handle := func(ctx context.Context, tasks []*stream.Task) {
		for i, task := range tasks {
			select {
			case <-ctx.Done():
				stream.Release(tasks[i:])
				return
			case <-time.After(time.Millisecond):
			}
			time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, func() {
				did.note(task)
				task.Done(copyOf(task))
			})
		}
	}
	start(t, k, "stays", handle)
	adm := kadm.NewClient(streamtest.Client(t, k))
	moves := 0
	for i := 0; committed(t, adm, k) < records*9/10; i++ {
		before := committed(t, adm, k)
		stop := start(t, k, fmt.Sprint("guest", i), handle)
		waitFor(t, func() bool { return committed(t, adm, k) > min(before+records/8, records*9/10) })
		stop()
		moves++
	}
	readOnce(t, k, "out", records)
	if moves < 3 {
		t.Fatalf("only %d members came and went while work was left", moves)
	}
	did.atMost(t, 1)
}

// TestLateEndOfALostAssignment: a task that ends after its partition went to somebody else leaves nothing.
func TestLateEndOfALostAssignment(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 10)
	kept := make(chan *stream.Task, 10)
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			kept <- task
		}
	})
	late := <-kept
	waitFor(t, func() bool { return len(kept) == 9 })
	stop() // waits its five seconds for what never ends
	late.Done(stream.Output{Topic: "out", Key: []byte("late"), Value: []byte("late")})
	start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if string(r.Key) == "late" {
			t.Fatal("a task of an assignment that is over left an output")
		}
		return string(r.Key) != "9"
	}, "out")
}

// TestReleasedTasksComeAgain, and only those.
func TestReleasedTasksComeAgain(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", 100)
	var released atomic.Int64
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			if task.Offset%2 == 0 {
				task.Release()
				released.Add(1)
				continue
			}
			task.Done(copyOf(task))
		}
	})
	waitFor(t, func() bool { return released.Load() >= 48 })
	stop()
	start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			if task.Offset%2 != 0 {
				t.Errorf("offset %d was done and committed, and came again", task.Offset)
			}
			task.Done(copyOf(task))
		}
	})
	readOnce(t, k, "out", 100)
}

// TestBacklog: records that are done behind one that is not do not count as left to do.
func TestBacklog(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 100)
	adm := kadm.NewClient(streamtest.Client(t, k))
	backlog := func() int64 {
		n, err := stream.Backlog(t.Context(), k, adm, "copy", "in")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := backlog(); n != 100 {
		t.Fatalf("before anybody consumed, the backlog is %d", n)
	}
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			if task.Offset == 3 {
				task.Release()
				continue
			}
			task.Done(copyOf(task))
		}
	})
	readOnce(t, k, "out", 99)
	waitFor(t, func() bool { return backlog() == 1 })
	stop()
	if n := backlog(); n != 1 {
		t.Fatalf("with one record left, the backlog is %d", n)
	}
}

// TestCaughtUp: records are to be done, the markers behind them are not.
func TestCaughtUp(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", 100)
	start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	})
	readOnce(t, k, "out", 100) // now each partition ends with a marker
	client := streamtest.Client(t, k)
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := stream.CaughtUp(short, k, client, "end", "out"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with nobody to do them: %v", err)
	}
	streamtest.Run(t, stream.NewConsumer(k, stream.Options{Name: "end", Topics: []string{"out"}, Handle: func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done()
		}
	}}).Run)
	if err := stream.CaughtUp(t.Context(), k, client, "end", "out"); err != nil {
		t.Fatal(err)
	}
}

// TestBackpressure: a partition whose handling stands still pauses at its bound (I7), and no other one waits for it.
func TestBackpressure(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", 8000)
	open := make(chan struct{})
	var others atomic.Int64
	c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Records: 200, Handle: func(ctx context.Context, tasks []*stream.Task) {
		if tasks[0].Partition == 0 {
			select {
			case <-open:
			case <-ctx.Done():
				stream.Release(tasks)
				return
			}
		} else {
			others.Add(int64(len(tasks)))
		}
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	}})
	streamtest.Run(t, c.Run)
	blocked := func() (s stream.PartitionStats) {
		for _, p := range c.Stats() {
			if p.Partition == 0 {
				s = p
			}
		}
		return s
	}
	waitFor(t, func() bool { return others.Load() > 5000 && blocked().Paused })
	if held := blocked().Held; held > 200+2000 {
		t.Errorf("the blocked partition holds %d records, more than its bound and one poll", held)
	}
	close(open)
	readOnce(t, k, "out", 8000)
}

// TestRetentionNeverEatsWork: a position below the log's start stops that partition, and only it, and says so.
func TestRetentionNeverEatsWork(t *testing.T) {
	k := pipe(t)
	fill(t, k, "in", 400)
	done := func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			task.Done(copyOf(task))
		}
	}
	stop := start(t, k, "a", done)
	readOnce(t, k, "out", 400)
	stop()
	fill(t, k, "in", 400)
	adm := kadm.NewClient(streamtest.Client(t, k))
	ends, err := adm.ListEndOffsets(t.Context(), k.Topic("in"))
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(k.Topic("in"), 2)
	var cut kadm.Offsets
	cut.AddOffset(end.Topic, end.Partition, end.Offset, -1)
	if _, err := adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	c := stream.NewConsumer(k, stream.Options{Name: "copy", Topics: []string{"in"}, Handle: done})
	streamtest.Run(t, c.Run)
	waitFor(t, func() bool {
		stopped, others := false, 0
		for _, p := range c.Stats() {
			if p.Stopped != nil {
				stopped = p.Partition == 2
			} else if p.Committed == p.End && p.End > 0 {
				others++
			}
		}
		return stopped && others >= 2
	})
}

// TestAppendAndLatest: entries of one commit become one record, snapshots the last one.
func TestAppendAndLatest(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", 500)
	sum := 0
	start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		entry := make([]byte, 1)
		for _, task := range tasks {
			entry[0] = byte(task.Offset)
			sum++
			task.Done(
				stream.Output{Topic: "out", Key: []byte("entries"), Value: entry, Mode: stream.Append},
				stream.Output{Topic: "out", Key: []byte("sum"), Value: fmt.Append(nil, sum), Mode: stream.Latest},
			)
		}
	})
	var entries []byte
	snapshots, written := 0, 0
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		switch string(r.Key) {
		case "entries":
			entries = append(entries, r.Value...)
			written++
		case "sum":
			snapshots++
			return string(r.Value) != "500"
		}
		return true
	}, "out")
	if len(entries) != 500 {
		t.Fatalf("%d entries came, not 500", len(entries))
	}
	for i, e := range entries {
		if e != byte(i) {
			t.Fatalf("entry %d is %d: out of order, or its buffer was kept", i, e)
		}
	}
	if written > 100 || snapshots > 100 {
		t.Errorf("500 tasks left %d records of entries and %d snapshots: they were not joined", written, snapshots)
	}
}

// TestTasksEndTogether: many tasks end in one call, whose slices and buffers are the caller's again.
func TestTasksEndTogether(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1}, streamtest.Topic{Name: "out", Partitions: 1})
	fill(t, k, "in", records)
	var outs []stream.Output
	stop := start(t, k, "a", func(_ context.Context, tasks []*stream.Task) {
		entries := stream.Output{Topic: "out", Key: []byte("entries"), Mode: stream.Append}
		outs = outs[:0]
		for _, task := range tasks {
			entries.Value = append(entries.Value, 'e')
			outs = append(outs, copyOf(task))
		}
		outs = append(outs, entries)
		stream.DoneAll(tasks, outs)
		clear(outs)
		clear(entries.Value)
		stream.DoneAll(nil, nil)
	})
	copies, entries := map[string]int{}, 0
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if string(r.Key) == "entries" {
			entries += bytes.Count(r.Value, []byte("e"))
		} else {
			copies[string(r.Key)]++
		}
		return len(copies) < records || entries < records
	}, "out")
	stop()
	for key, n := range copies {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
	if entries != records {
		t.Errorf("%d entries of %d", entries, records)
	}
}
