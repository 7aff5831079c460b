package lanes

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// A lane counts for as long as it was heard, though its clock is off by more.
func TestLanesCountWhateverTheirClock(t *testing.T) {
	begin := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	now, ready := begin, make(chan struct{})
	said := func(off time.Duration) *View {
		now = begin
		v := &View{byKey: map[string]word{}, ready: ready, now: func() time.Time { return now }}
		value, err := proto.Marshal(&pb.LaneStatus{At: now.Add(off).UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		v.apply(stream.ViewRecord{Key: []byte("fcm/bulk/a"), Value: value})
		return v
	}
	if len(said(-Life).Fresh()) != 0 {
		t.Error("what lay on the topic for long counts as said just now")
	}
	close(ready)
	for _, off := range []time.Duration{-30 * time.Second, 30 * time.Second} {
		v := said(off)
		if len(v.Fresh()) != 1 {
			t.Errorf("a lane whose clock is %v off does not count", off)
		}
		if now = now.Add(Life); len(v.Fresh()) != 0 {
			t.Errorf("a lane whose clock is %v off counts after it fell silent", off)
		}
	}
}

func TestAnInstanceThatLeft(t *testing.T) {
	v := &View{byKey: map[string]word{}, now: time.Now}
	value, err := proto.Marshal(&pb.LaneStatus{At: time.Now().UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	v.apply(stream.ViewRecord{Key: []byte("fcm/bulk/a"), Value: value})
	v.apply(stream.ViewRecord{Key: []byte("fcm/bulk/a")})
	if len(v.Fresh()) != 0 {
		t.Error("it still counts")
	}
}
