package fanout

import (
	"context"
	"fmt"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

func queued(app, run string, devices uint32, partition int32) *work {
	return &work{
		ctx: context.Background(), run: app + "/" + run, task: &stream.Task{Partition: partition},
		chunk: &pb.Chunk{App: app, Run: run, Estimate: devices},
	}
}

func always(*work) bool { return true }

func TestSmallCampaignIsServedAmidABlast(t *testing.T) {
	q := fairQueue{}
	for i := range 200 { // a million devices
		q.push(queued("shop", "blast", 5000, int32(i%12)), 1)
	}
	for range 50 {
		q.next(always)
	}
	q.push(queued("shop", "small", 1000, 3), 1)
	if w := q.next(always); w.run != "shop/small" {
		t.Errorf("the small campaign waits behind %s", w.run)
	}
	q.push(queued("other", "small", 1000, 3), 1)
	if w := q.next(always); w.run != "other/small" {
		t.Errorf("the other app's campaign waits behind %s", w.run)
	}
}

func TestAppsShareEvenlyAndCampaignsByWeight(t *testing.T) {
	q := fairQueue{}
	for range 1000 {
		q.push(queued("a", "one", 5000, 0), 1)
		q.push(queued("a", "three", 5000, 0), 3)
		q.push(queued("b", "other", 1000, 0), 1)
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
		q.push(queued("a", "held", 100, 0), 1)
		q.push(queued("a", "other", 100, 0), 1)
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
		w := queued("a", "blast", 1, int32(i%2))
		w.task.Offset = int64(i)
		q.push(w, 1)
	}
	q.push(queued("a", "small", 1, 0), 1)
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
