package fanout

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

func says(t *testing.T, l *lanes, key string, s *pb.LaneStatus) {
	t.Helper()
	value, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	l.apply(stream.ViewRecord{Key: []byte(key), Value: value})
}

func bulk(p pb.Platform, at time.Time, rate float64, destinations ...*pb.DestinationStatus) *pb.LaneStatus {
	return &pb.LaneStatus{Platform: p, Class: pb.Class_CLASS_BULK, At: at.UnixMilli(), DrainRate: rate, Destinations: destinations}
}

func TestGateFollowsTheLanesDrain(t *testing.T) {
	now := epoch
	l := &lanes{byKey: map[string]laneWord{}, now: func() time.Time { return now }}
	var uncommitted int64
	g := &gate{
		platform: fcm, lanes: l, budget: 30 * time.Second,
		uncommitted: func() int64 { return uncommitted }, now: func() time.Time { return now },
	}
	if g.open() {
		t.Error("open before anything is known of the backlog")
	}
	g.reading(gateFloor-1, 12, now)
	if !g.open() {
		t.Error("shut below the floor")
	}
	g.reading(gateFloor, 12, now)
	if g.open() {
		t.Error("open at the floor, though nothing drains")
	}
	says(t, l, "fcm/bulk/a", bulk(fcm, now, 1000))
	says(t, l, "fcm/bulk/b", bulk(fcm, now, 500))
	says(t, l, "apns/bulk/a", bulk(apns, now, 1e6))
	urgent := bulk(fcm, now, 1e6)
	urgent.Class = pb.Class_CLASS_URGENT
	says(t, l, "fcm/urgent/a", urgent)
	g.reading(44_999, 12, now)
	if !g.open() {
		t.Error("shut below 30 s of 1,500/s")
	}
	g.begin(5000)
	if g.open() {
		t.Error("what is being expanded does not count")
	}
	g.done(5000, 100)
	if g.open() {
		t.Error("what was expanded since the reading does not count")
	}
	uncommitted = 50
	g.ask()
	g.done(0, 60)
	g.reading(44_890, 12, now)
	if g.open() {
		t.Error("what was not committed when Kafka was asked, or expanded since, does not count")
	}
	uncommitted = 0
	g.ask()
	g.reading(44_999, 12, now)
	if !g.open() {
		t.Error("what shows by now is counted twice for ever")
	}
	now = now.Add(statusLife)
	g.reading(44_999, 12, now)
	if g.open() {
		t.Error("instances that fell silent still count as draining")
	}
	g.reading(0, 12, now)
	if now = now.Add(gateLife); g.open() {
		t.Error("open on a reading that is too old")
	}
}

func TestAppIsShutWhileAllItsDestinationsHoldDeliveries(t *testing.T) {
	l := &lanes{byKey: map[string]laneWord{}, now: func() time.Time { return epoch }}
	stopped := func(name string, parked uint64) *pb.DestinationStatus {
		return &pb.DestinationStatus{App: "shop", Name: name, State: pb.DestinationState_DESTINATION_STATE_STOPPED, Parked: parked}
	}
	open := &pb.DestinationStatus{App: "shop", Name: "o", State: pb.DestinationState_DESTINATION_STATE_OPEN}
	for _, test := range []struct {
		why  string
		want bool
		of   []*pb.DestinationStatus
	}{
		{"nothing is known", false, nil},
		{"both hold deliveries", true, []*pb.DestinationStatus{stopped("a", 5), stopped("b", 1)}},
		{"one is open", false, []*pb.DestinationStatus{stopped("a", 5), open}},
		{"one of two has its budget parked", true, []*pb.DestinationStatus{stopped("a", parkBudget), open}},
		{"one has nothing to probe with", false, []*pb.DestinationStatus{stopped("a", 5), stopped("b", 0)}},
	} {
		says(t, l, "webpush/bulk/a", bulk(webpush, epoch, 0, test.of...))
		if got := l.shut("shop", webpush, epoch); got != test.want {
			t.Errorf("%s: shut is %v", test.why, got)
		}
	}
	says(t, l, "webpush/bulk/a", bulk(webpush, epoch, 0, stopped("a", parkBudget/2), open))
	says(t, l, "webpush/bulk/b", bulk(webpush, epoch, 0, stopped("a", parkBudget/2), open))
	if !l.shut("shop", webpush, epoch) {
		t.Error("not shut, though two instances have the budget parked together")
	}
	says(t, l, "webpush/bulk/b", bulk(webpush, epoch, 0))
	says(t, l, "webpush/bulk/a", bulk(webpush, epoch, 0, stopped("a", 5)))
	if l.shut("other", webpush, epoch) || l.shut("shop", fcm, epoch) || l.shut("shop", webpush, epoch.Add(time.Minute)) {
		t.Error("shut for another app, another platform or out of date")
	}
}

// TestLanesCountWhateverTheirClock: a lane's word counts for as long as it was heard, though its clock is off by more.
func TestLanesCountWhateverTheirClock(t *testing.T) {
	now, ready := epoch, make(chan struct{})
	close(ready)
	for _, off := range []time.Duration{-30 * time.Second, 30 * time.Second} {
		l := &lanes{byKey: map[string]laneWord{}, ready: ready, now: func() time.Time { return now }}
		says(t, l, "fcm/bulk/a", bulk(fcm, now.Add(off), 1000))
		if l.drainRate(fcm, now) != 1000 {
			t.Errorf("a lane whose clock is %v off does not count", off)
		}
		if l.drainRate(fcm, now.Add(statusLife)) != 0 {
			t.Errorf("a lane whose clock is %v off counts after it fell silent", off)
		}
	}
	l := &lanes{byKey: map[string]laneWord{}, now: func() time.Time { return now }}
	says(t, l, "fcm/bulk/a", bulk(fcm, now.Add(-statusLife), 1000))
	if l.drainRate(fcm, now) != 0 {
		t.Error("what lay on the topic for long counts as said just now")
	}
}
