package fanout

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// said are statuses by instance.
type said map[string]*pb.LaneStatus

func (s said) fresh() []*pb.LaneStatus { return slices.Collect(maps.Values(s)) }

func bulk(p pb.Platform, rate float64, destinations ...*pb.DestinationStatus) *pb.LaneStatus {
	return &pb.LaneStatus{Platform: p, Class: pb.Class_CLASS_BULK, DrainRate: rate, Destinations: destinations}
}

func TestGateFollowsTheLanesDrain(t *testing.T) {
	now := epoch
	l := said{}
	var uncommitted int64
	g := &gate{
		platform: fcm, lanes: l.fresh, budget: 30 * time.Second,
		uncommitted: func() int64 { return uncommitted }, now: func() time.Time { return now },
	}
	open := func() bool {
		open, _ := g.state(now)
		return open
	}
	if open() {
		t.Error("open before anything is known of the backlog")
	}
	g.reading(gateFloor-1, 12, now)
	if !open() {
		t.Error("shut below the floor")
	}
	g.reading(gateFloor, 12, now)
	if open() {
		t.Error("open at the floor, though nothing drains")
	}
	l["fcm/bulk/a"] = bulk(fcm, 1000)
	l["fcm/bulk/b"] = bulk(fcm, 500)
	l["apns/bulk/a"] = bulk(apns, 1e6)
	urgent := bulk(fcm, 1e6)
	urgent.Class = pb.Class_CLASS_URGENT
	l["fcm/urgent/a"] = urgent
	g.reading(44_999, 12, now)
	if !open() {
		t.Error("shut below 30 s of 1,500/s")
	}
	g.begin(5000)
	if open() {
		t.Error("what is being expanded does not count")
	}
	g.done(5000, 100)
	if open() {
		t.Error("what was expanded since the reading does not count")
	}
	uncommitted = 50
	g.ask()
	g.done(0, 60)
	g.reading(44_890, 12, now)
	if open() {
		t.Error("what was not committed when Kafka was asked, or expanded since, does not count")
	}
	uncommitted = 0
	g.ask()
	g.reading(44_999, 12, now)
	if !open() {
		t.Error("what shows by now is counted twice for ever")
	}
	clear(l)
	g.reading(44_999, 12, now)
	if open() {
		t.Error("instances that fell silent still count as draining")
	}
	g.reading(0, 12, now)
	if now = now.Add(gateLife); open() {
		t.Error("open on a reading that is too old")
	}
}

// What a lane has too little of comes at once, and the rest as it drains: a blast does not take every core from what is urgent.
func TestExpansionIsSpreadOut(t *testing.T) {
	now := epoch
	l := said{"fcm/bulk/a": bulk(fcm, 20_000)}
	g := &gate{platform: fcm, lanes: l.fresh, budget: 5 * time.Second, uncommitted: func() int64 { return 0 }, now: func() time.Time { return now }}
	for _, test := range []struct {
		backlog int64
		after   time.Duration
		open    bool
	}{{49_999, 0, true}, {50_000, 0, false}, {50_000, 124 * time.Millisecond, false}, {50_000, 125 * time.Millisecond, true}, {100_000, time.Second, false}} {
		now, g.next = epoch, time.Time{}
		g.spend(5000, now)
		now = now.Add(test.after)
		g.reading(test.backlog, 12, now)
		if open, ajar := g.state(now); open != test.open || !ajar {
			t.Errorf("with %d waiting, %v after a chunk of 5,000: open %v, ajar %v", test.backlog, test.after, open, ajar)
		}
	}
	g.reading(200_000, 12, now)
	if _, ajar := g.state(now); ajar {
		t.Error("room for newcomers at twice what is allowed")
	}
}

func TestAppIsShutWhileAllItsDestinationsHoldDeliveries(t *testing.T) {
	l := said{}
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
		{"one of two has its budget parked", true, []*pb.DestinationStatus{stopped("a", schemas.ParkBudget), open}},
		{"one has nothing to probe with", false, []*pb.DestinationStatus{stopped("a", 5), stopped("b", 0)}},
	} {
		l["webpush/bulk/a"] = bulk(webpush, 0, test.of...)
		if got := shut(l.fresh(), "shop", webpush); got != test.want {
			t.Errorf("%s: shut is %v", test.why, got)
		}
	}
	l["webpush/bulk/a"] = bulk(webpush, 0, stopped("a", schemas.ParkBudget/2), open)
	l["webpush/bulk/b"] = bulk(webpush, 0, stopped("a", schemas.ParkBudget/2), open)
	if !shut(l.fresh(), "shop", webpush) {
		t.Error("not shut, though two instances have the budget parked together")
	}
	l["webpush/bulk/b"] = bulk(webpush, 0)
	l["webpush/bulk/a"] = bulk(webpush, 0, stopped("a", 5))
	if shut(l.fresh(), "other", webpush) || shut(l.fresh(), "shop", fcm) {
		t.Error("shut for another app or another platform")
	}
}
