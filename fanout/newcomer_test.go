package fanout

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// A blast has filled the lane. The first chunk of a run that comes now may go all the same, but only one, and only as long
// as the lane is not twice as full.
func TestNewcomerPassesAClosedGate(t *testing.T) {
	now := epoch
	f := New(Options{Kafka: streamtest.Kafka(t), Now: func() time.Time { return now }})
	e := f.expanders[apns]
	queue := func(id string) {
		c := definition()
		c.Id = id
		run(c, now)
		value, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		key := string(schemas.Key(c.App, c.Id))
		f.campaigns.apply(stream.ViewRecord{Key: []byte(key), Value: value})
		w := &work{ctx: t.Context(), task: &stream.Task{}, chunk: &pb.Chunk{App: c.App, Run: id, Platform: apns, Estimate: 5000}, run: key, weight: 1, since: now}
		e.push(w)
	}
	for range 20 {
		queue("blast")
	}
	e.gate.reading(0, 1, now)
	if w := e.take(); w == nil {
		t.Fatal("nothing goes through an open gate")
	}
	e.gate.reading(gateFloor, 1, now)
	if w := e.take(); w != nil {
		t.Fatalf("%s passed a closed gate", w.run)
	}
	queue("small")
	queue("small")
	if w := e.take(); w == nil || w.chunk.Run != "small" {
		t.Fatalf("the newcomer did not pass: %v", w)
	}
	if w := e.take(); w != nil {
		t.Fatalf("%s passed a closed gate after its first chunk", w.run)
	}
	e.gate.reading(2*gateFloor, 1, now)
	queue("late")
	if w := e.take(); w != nil {
		t.Fatalf("%s passed with the lane twice as full", w.run)
	}
}

func TestRunsAreForgotten(t *testing.T) {
	b := began{}
	for i := range 100 {
		b.note(fmt.Sprintf("shop/%d", i), epoch)
	}
	if b.newcomer("shop/1") {
		t.Error("a run is new twice")
	}
	b.note("shop/next", epoch.Add(forget+time.Second))
	if len(b) != 1 {
		t.Errorf("%d runs are remembered after %v", len(b), forget)
	}
}
