package fanout

import (
	"context"
	"fmt"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

func queued(app, run string, devices uint32, partition int32, weight uint32) *work {
	return &work{
		weight: weight,
		ctx:    context.Background(), run: app + "/" + run, task: &stream.Task{Partition: partition},
		chunk: &pb.Chunk{App: app, Run: run, Estimate: devices},
	}
}

func always(*work) bool { return true }

func TestSmallCampaignIsServedAmidABlast(t *testing.T) {
	q := fairQueue{}
	for i := range 200 { // a million devices
		q.push(queued("shop", "blast", 5000, int32(i%12), 1))
	}
	for range 50 {
		q.next(always)
	}
	q.push(queued("shop", "small", 1000, 3, 1))
	if w := q.next(always); w.run != "shop/small" {
		t.Errorf("the small campaign waits behind %s", w.run)
	}
	q.push(queued("other", "small", 1000, 3, 1))
	if w := q.next(always); w.run != "other/small" {
		t.Errorf("the other app's campaign waits behind %s", w.run)
	}
}

func TestAppsShareEvenlyAndCampaignsByWeight(t *testing.T) {
	q := fairQueue{}
	for range 1000 {
		q.push(queued("a", "one", 5000, 0, 1))
		q.push(queued("a", "three", 5000, 0, 3))
		q.push(queued("b", "other", 1000, 0, 1))
	}
	served := map[string]uint32{}
	for range 500 {
		w := q.next(always)
		served[w.run] += w.chunk.Estimate
	}
	a, b := served["a/one"]+served["a/three"], served["b/other"]
	if diff := int(a) - int(b); diff > 10_000 || diff < -10_000 {
		t.Errorf("app a was served %d devices, app b %d", a, b)
	}
	if ratio := float64(served["a/three"]) / float64(served["a/one"]); ratio < 2.8 || ratio > 3.2 {
		t.Errorf("weights 3 and 1 were served %.2f to 1", ratio)
	}
}

func TestHeldCampaignSavesNothingUp(t *testing.T) {
	q := fairQueue{}
	for range 300 {
		q.push(queued("a", "held", 100, 0, 1))
		q.push(queued("a", "other", 100, 0, 1))
	}
	for range 100 {
		if w := q.next(func(w *work) bool { return w.run != "a/held" }); w.run != "a/other" {
			t.Fatalf("served %s", w.run)
		}
	}
	held := 0
	for range 100 {
		if q.next(always).run == "a/held" {
			held++
		}
	}
	if held < 45 || held > 55 {
		t.Errorf("of 100 chunks after its resumption the held campaign got %d", held)
	}
}

func TestLongestRunOfAPartitionLetsGoOfItsLast(t *testing.T) {
	q := fairQueue{}
	for i := range 30 {
		w := queued("a", "blast", 1, int32(i%2), 1)
		w.task.Offset = int64(i)
		q.push(w)
	}
	q.push(queued("a", "small", 1, 0, 1))
	got := q.longest(0, 5)
	var offsets []int64
	for _, w := range got {
		if w.run != "a/blast" {
			t.Errorf("took a chunk of %s", w.run)
		}
		offsets = append(offsets, w.task.Offset)
	}
	if fmt.Sprint(offsets) != "[20 22 24 26 28]" {
		t.Errorf("took %v", offsets)
	}
	n := 0
	for q.next(always) != nil {
		n++
	}
	if n != 26 || !q.empty() {
		t.Errorf("%d chunks were left", n)
	}
}

// waits is a chunk whose devices wait for destinations.
func waits(run string, partition int32, names ...string) *work {
	w := queued("a", run, 100, partition, 1)
	w.chunk.Waits = names
	return w
}

// Chunks that wait stand before no others of their run, and go when one of their destinations takes more.
func TestChunksThatWaitStandAside(t *testing.T) {
	q := fairQueue{}
	q.push(waits("one", 0, "mozilla"))
	q.push(waits("one", 0, "apple", "mozilla"))
	q.push(waits("one", 0, "mozilla"))
	q.push(queued("a", "one", 100, 0, 1))
	of := destinations{"mozilla": shut, "apple": shut}
	ready := func(w *work) bool { return of.lets(w.chunk, false) }
	if w := q.next(ready); w == nil || len(w.chunk.Waits) != 0 {
		t.Fatalf("got %v", w)
	}
	if w := q.next(ready); w != nil {
		t.Fatalf("%v went", w.chunk)
	}
	of["apple"] = open
	if w := q.next(ready); w == nil || len(w.chunk.Waits) != 2 {
		t.Fatalf("got %v", w)
	}
	of["mozilla"] = open
	left := 0
	for q.next(ready) != nil {
		left++
	}
	if left != 2 || !q.empty() {
		t.Errorf("%d of 2 that were left went", left)
	}
}

// Of a run of which nothing comes one chunk at a time is looked at, and neither it nor its app pays for that.
func TestARunOfWhichNothingComesTakesNobodysTurn(t *testing.T) {
	q := fairQueue{}
	for range 20 {
		q.push(queued("a", "sick", 100, 0, 1))
		q.push(queued("a", "well", 100, 0, 1))
		q.push(queued("b", "well", 100, 0, 1))
	}
	served := map[string]int{}
	var looking *work
	for range 20 {
		w := q.next(always)
		if w.run != "a/sick" {
			served[w.run]++
			q.looked(w, 0, false)
			continue
		}
		if looking != nil && looking.look {
			t.Fatal("two chunks of it are looked at at a time")
		}
		if looking == nil { // the first, which nobody knew to be barren
			q.looked(w, 100, true)
			looking = w
			continue
		}
		looking = w // this look never ends
	}
	if served["a/well"] != 9 || served["b/well"] != 9 {
		t.Errorf("beside one that nothing comes of the others were served %v", served)
	}
	q.looked(looking, 0, false)
	if w := q.next(func(w *work) bool { return w.run == "a/sick" }); w == nil || w.look {
		t.Error("something has come of it, and it is still looked at as if nothing did")
	}
}

func TestWhatWaitsForDestinationsMakesRoomFirst(t *testing.T) {
	q := fairQueue{}
	for range 4 {
		q.push(queued("a", "one", 100, 0, 1))
		q.push(waits("one", 0, "mozilla"))
		q.push(waits("one", 1, "mozilla"))
	}
	got := q.longest(0, 6)
	if len(got) != 6 {
		t.Fatalf("%d made room", len(got))
	}
	for i, w := range got {
		if w.task.Partition != 0 || (len(w.chunk.Waits) > 0) != (i < 4) {
			t.Errorf("chunk %d is of partition %d, and waits for %v", i, w.task.Partition, w.chunk.Waits)
		}
	}
	n := 0
	for q.next(always) != nil {
		n++
	}
	if n != 6 {
		t.Errorf("%d are left", n)
	}
}
