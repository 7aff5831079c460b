package fanout

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// restrain pauses a part of the traffic, or lifts the pause.
func (w *world) restrain(n control.Name, paused bool) {
	w.Helper()
	r := &kgo.Record{Topic: schemas.TopicControl, Key: []byte(n)}
	if paused {
		var err error
		if r.Value, err = control.Record(&pb.Restraint{Paused: true}); err != nil {
			w.Fatal(err)
		}
	}
	streamtest.Produce(w, w.kafka, r)
}

// What is paused waits as chunks, over a restart, and goes on when the pause is lifted.
func TestPausedLaneAndAppAreNotExpanded(t *testing.T) {
	for _, name := range []control.Name{control.Lane(apns, pb.Class_CLASS_BULK), control.App("shop")} {
		t.Run(string(name), func(t *testing.T) {
			w := newWorld(t, devices("shop", 300)...)
			w.restrain(name, true)
			w.restrain(control.App("other"), true)
			w.restrain(control.Lane(apns, pb.Class_CLASS_URGENT), true)
			w.launched(running, 64, apns, fcm)
			w.start("a")()
			w.start("b")
			if name.App() == "" {
				w.planned(fcm, 64) // another lane is not concerned
			}
			// Behind them on every partition lie chunks of which there is no campaign: see the paused campaign's test.
			for i := range 64 {
				c := &pb.Chunk{App: "shop", Run: "gone", Platform: apns, Index: uint32(100 + i), Total: 64}
				w.produce(schemas.TopicChunks(apns), chunkKey(i), c)
			}
			if n := w.planned(apns, 64); n != 0 || len(w.deliveries(apns, pb.Class_CLASS_BULK)) != 0 {
				t.Errorf("%d planned while paused", n)
			}
			w.restrain(name, false)
			if n := w.planned(apns, 128); n != 100 {
				t.Errorf("%d planned afterwards", n)
			}
		})
	}
}
