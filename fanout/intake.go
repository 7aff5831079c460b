package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// queuedChunks is how many chunks of one partition may lie in the fair queue. It bounds what is done out of order
	// too, so that a partition's completion map always fits and no chunk is ever expanded twice. queuedBytes is how large they
	// may be together: a chunk takes a few dozen bytes, the rest of one 8 a device.
	queuedChunks = 256
	queuedBytes  = 4 << 20
	// putBackAfter is how long the next chunks of a partition wait for room before its longest run has to make some, and
	// putBackRate how many bytes a second a partition may have written again for it, in the mean.
	putBackAfter = 500 * time.Millisecond
	putBackRate  = 256 << 10
	// putBackOld is when a chunk that may still not go is written again at the end. What stays in place holds its
	// partition's committed offset back, and a window spans so much and no more.
	putBackOld = 10 * time.Minute
)

// stock is what a partition has in the queue.
type stock struct {
	chunks, bytes int
	// putBack is not before when it is to make room again.
	putBack time.Time
}

func (h stock) full() bool { return h.chunks >= queuedChunks || h.bytes >= queuedBytes }

// handle queues chunks. While its partition has enough of them queued it waits, which holds back nothing but the chunks
// behind; but not for long: a run that is paused, slow or very large must not stand before those that came later. Then
// the run that has the most lets go of some, which are written again behind the others.
func (e *expander) handle(ctx context.Context, tasks []*stream.Task) {
	e.follow(ctx, tasks[0])
	for _, t := range tasks {
		if !e.room(ctx, t.Partition) {
			t.Release()
			continue
		}
		if w := e.read(ctx, t); w != nil {
			e.push(w)
		}
	}
}

// follow sees to it that a partition's chunks leave the queue with its assignment.
func (e *expander) follow(ctx context.Context, t *stream.Task) {
	partition, assignment := t.Partition, t.Assignment()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.assignments[partition] == assignment {
		return
	}
	e.assignments[partition] = assignment
	e.emitted[partition] = nil
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(e.queue.remove(func(w *work) bool {
			return w.task.Partition == partition && w.task.Assignment() == assignment
		}), func(w *work) { w.task.Release() })
	})
}

// drop ends chunks that were taken out of the queue without being expanded. mu is held.
func (e *expander) drop(ws []*work, end func(*work)) {
	for _, w := range ws {
		e.count(w, -1)
		end(w)
	}
}

// count notes that n chunks like this one came into the queue. mu is held.
func (e *expander) count(w *work, n int) {
	h := e.queued[w.task.Partition]
	h.chunks += n
	h.bytes += n * len(w.task.Value)
	e.queued[w.task.Partition] = h
}

// room waits until one more chunk of the partition may be queued. It is false when ctx is over.
func (e *expander) room(ctx context.Context, partition int32) bool {
	limit := time.Now().Add(putBackAfter)
	for {
		e.mu.Lock()
		if h := e.queued[partition]; h.full() && !time.Now().Before(limit) && !time.Now().Before(h.putBack) {
			e.putBack(partition)
		}
		full := e.queued[partition].full()
		e.mu.Unlock()
		if !full || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(turn):
		}
	}
}

// putBack writes half of a partition's chunks again at its end, those of the runs that have the most there. mu is held.
func (e *expander) putBack(partition int32) {
	before := e.queued[partition]
	for left := before.chunks / 2; left > 0; {
		ws := e.queue.longest(partition, left)
		if len(ws) == 0 {
			break
		}
		left -= len(ws)
		e.drop(ws, again)
	}
	after := e.queued[partition]
	after.putBack = time.Now().Add(time.Duration(before.bytes-after.bytes) * time.Second / putBackRate)
	e.queued[partition] = after
}

// putBackStale does the same with chunks that have been queued for long, wherever they lie.
func (e *expander) putBackStale(ctx context.Context) error {
	tick := time.NewTicker(putBackOld / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			e.mu.Lock()
			e.drop(e.queue.remove(func(w *work) bool { return now.Sub(w.since) > putBackOld }), again)
			e.mu.Unlock()
		}
	}
}

// read decodes a chunk and finds its campaign. A chunk that cannot be expanded it ends, and returns nil.
func (e *expander) read(ctx context.Context, t *stream.Task) *work {
	dead := schemas.TopicDead(e.platform)
	c := &pb.Chunk{}
	err := proto.Unmarshal(t.Value, c)
	if err == nil {
		err = e.fault(c)
	}
	if err != nil {
		t.Done(t.DeadLetter(dead, "undecodable", err.Error()))
		return nil
	}
	run := c.App + "/" + c.Run
	known := e.campaigns.get(run)
	if known == nil {
		if e.campaigns.catchUp(ctx) != nil {
			t.Release()
			return nil
		}
		known = e.campaigns.get(run)
	}
	if known == nil {
		err := fmt.Errorf("there is no campaign %s", run)
		t.Done(t.DeadLetter(dead, "unknown-run", err.Error()), e.tell(c, 0, false))
		return nil
	}
	w := &work{ctx: ctx, task: t, chunk: c, run: run, partial: len(c.Rest) > 0, weight: known.Weight, since: time.Now()}
	c.Rest = nil // see work.rest
	return w
}

func (e *expander) fault(c *pb.Chunk) error {
	switch {
	case c.App == "" || c.Run == "":
		return errors.New("the chunk names no app or run")
	case c.Platform != e.platform:
		return fmt.Errorf("the chunk is of platform %q", schemas.PlatformName(c.Platform))
	case c.EndShard > schemas.Shards || c.FirstShard > c.EndShard:
		return fmt.Errorf("the chunk's shards [%d, %d) are not in [0, %d)", c.FirstShard, c.EndShard, schemas.Shards)
	}
	return nil
}

func (e *expander) push(w *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.enqueue(w)
}

// enqueue puts a chunk into the queue, or gives it back when its partition has gone. mu is held.
func (e *expander) enqueue(w *work) {
	if w.ctx.Err() != nil {
		w.task.Release()
		return
	}
	e.queue.push(w)
	e.count(w, 1)
}
