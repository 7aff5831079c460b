package fanout

import (
	"maps"
	"slices"
	"testing"
	"time"

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

// One app's destination takes nothing, and a quarter of the lane's windows is full of it. That closes the gate for nobody.
func TestWhatIsStuckIsNoBacklog(t *testing.T) {
	now := epoch
	ill := sick("project")
	ill.Queued = 24_000
	busy := &pb.DestinationStatus{App: "blog", State: pb.DestinationState_DESTINATION_STATE_OPEN, Queued: 24_000}
	l := said{"fcm/bulk/a": bulk(fcm, 1000, ill)}
	g := &gate{platform: fcm, lanes: l.fresh, budget: 5 * time.Second, uncommitted: func() int64 { return 0 }, now: func() time.Time { return now }}
	g.reading(24_100, 12, now)
	if open, _ := g.state(now); !open {
		t.Error("closed by what waits for another app's destination")
	}
	g.reading(24_000+gateFloor, 12, now)
	if open, _ := g.state(now); open {
		t.Error("open with the floor's backlog beside what is stuck")
	}
	l["fcm/bulk/a"] = bulk(fcm, 1000, busy)
	g.reading(24_100, 12, now)
	if open, _ := g.state(now); open {
		t.Error("open, though what the lane holds is to be sent")
	}
	l["fcm/bulk/a"] = bulk(apns, 1000, ill)
	if open, _ := g.state(now); open {
		t.Error("open by what is stuck on another platform")
	}
	l["fcm/bulk/a"] = bulk(fcm, 1000, ill)
	g.reading(100, 12, now) // older than what the lane says
	g.begin(gateFloor)
	if open, _ := g.state(now); open {
		t.Error("what is stuck makes room for more than the backlog has of it")
	}
}
