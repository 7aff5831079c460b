package producer

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// TestLanesAreShownWhateverTheirClock: a lane is shown for as long as it was heard, though its clock is off by more.
func TestLanesAreShownWhateverTheirClock(t *testing.T) {
	now, ready := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), make(chan struct{})
	said := func(ready chan struct{}, off time.Duration) *laneView {
		l := &laneView{statuses: map[string]laneWord{}, ready: ready, now: func() time.Time { return now }}
		value, err := proto.Marshal(&pb.LaneStatus{At: now.Add(off).UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		l.apply(stream.ViewRecord{Key: []byte("fcm/bulk/a"), Value: value})
		return l
	}
	if len(said(ready, -statusLife).fresh(now)) != 0 {
		t.Error("what lay on the topic for long is shown as said just now")
	}
	close(ready)
	for _, off := range []time.Duration{-30 * time.Second, 30 * time.Second} {
		l := said(ready, off)
		if len(l.fresh(now)) != 1 {
			t.Errorf("a lane whose clock is %v off is not shown", off)
		}
		if len(l.fresh(now.Add(statusLife))) != 0 {
			t.Errorf("a lane whose clock is %v off is shown after it fell silent", off)
		}
	}
}
