package fanout

import (
	"testing"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	chrome  = "fcm.googleapis.com"
	mozilla = "updates.push.services.mozilla.com"
)

// stands is what a lane says of a destination of app shop.
func stands(name string, state pb.DestinationState, shut bool, parked uint64) *pb.DestinationStatus {
	return &pb.DestinationStatus{App: "shop", Name: name, State: state, Shut: shut, Parked: parked}
}

func opened(name string) *pb.DestinationStatus {
	return stands(name, pb.DestinationState_DESTINATION_STATE_OPEN, false, 0)
}

func sick(name string) *pb.DestinationStatus {
	return stands(name, pb.DestinationState_DESTINATION_STATE_WAITING, true, 5)
}

func blocked(name string) *pb.DestinationStatus {
	return stands(name, pb.DestinationState_DESTINATION_STATE_BLOCKED, true, 5)
}

// What is sick keeps its own devices waiting, and nobody else's.
func TestEachDestinationIsShutForItsOwnDevicesAlone(t *testing.T) {
	type word = []*pb.DestinationStatus
	half := stands(chrome, pb.DestinationState_DESTINATION_STATE_OPEN, false, schemas.ParkBudget/2)
	for _, test := range []struct {
		why       string
		instances []word
		name      string
		shut      bool
	}{
		{"no lane speaks", nil, mozilla, false},
		{"the lane has just started", []word{{}}, mozilla, false},
		{"it takes nothing", []word{{sick(mozilla)}}, mozilla, true},
		{"another takes nothing, and this one is not known", []word{{sick(mozilla)}}, chrome, false},
		{"another takes nothing, and this one is open", []word{{sick(mozilla), opened(chrome)}}, chrome, false},
		{"an origin that is not known", []word{{sick(mozilla)}}, "https://push.example", false},
		{"it takes nothing, and has nothing to find out with", []word{{stands(mozilla, pb.DestinationState_DESTINATION_STATE_WAITING, false, 0)}}, mozilla, false},
		{"one instance knows it as sick, one not at all", []word{{sick(mozilla)}, {}}, mozilla, true},
		{"one instance has seen it well again", []word{{sick(mozilla)}, {opened(mozilla)}}, mozilla, false},
		{"no instance has its credential", []word{{blocked(mozilla)}, {blocked(mozilla)}}, mozilla, true},
		{"one instance has no credential, and the other was given nothing yet", []word{{blocked(mozilla)}, {}}, mozilla, false},
		{"one instance has no credential, and for the other it is sick", []word{{blocked(mozilla)}, {sick(mozilla)}}, mozilla, true},
		{"it is open and slow, and has its budget parked", []word{{half}, {half}}, chrome, true},
		{"it is open and slow", []word{{half}, {}}, chrome, false},
		{"too many origins, and the rest is sick", []word{{opened("https://a.example"), sick("other")}}, "https://push.example", true},
		{"too many origins, and this one has its place", []word{{opened("https://a.example"), sick("other")}}, "https://a.example", false},
		{"too many origins, and this is a browser's", []word{{sick("other")}}, chrome, false},
	} {
		var statuses []*pb.LaneStatus
		for _, w := range test.instances {
			statuses = append(statuses, bulk(webpush, 0, w...))
		}
		o := newOutlook(statuses, webpush)
		if got := o["shop"].at(test.name) != open; got != test.shut {
			t.Errorf("%s: shut is %v", test.why, got)
		}
		if o["blog"].at(test.name) != open || newOutlook(statuses, apns)["shop"].at(test.name) != open {
			t.Errorf("%s: shut for another app, or on another platform", test.why)
		}
	}
}

func TestAChunkIsLookedAtWhenSomethingMayComeOfIt(t *testing.T) {
	chunk := func(p pb.Platform, waits ...string) *pb.Chunk {
		return &pb.Chunk{App: "shop", Platform: p, Waits: waits}
	}
	project := []*pb.DestinationStatus{sick("old-project"), opened("project")} // a lane that is being restarted with another
	for _, test := range []struct {
		why   string
		of    []*pb.DestinationStatus
		chunk *pb.Chunk
		lets  bool
	}{
		{"web push: nobody knows what is in it", []*pb.DestinationStatus{sick(mozilla)}, chunk(webpush), true},
		{"all of it is Mozilla's", []*pb.DestinationStatus{sick(mozilla), opened(chrome)}, chunk(webpush, mozilla), false},
		{"a part of it is Chrome's by now", []*pb.DestinationStatus{sick(mozilla), opened(chrome)}, chunk(webpush, chrome, mozilla), true},
		{"the lane was restarted and knows nothing", nil, chunk(webpush, mozilla), true},
		{"FCM has one project", []*pb.DestinationStatus{sick("project")}, chunk(fcm), false},
		{"FCM, by any of its names", project, chunk(fcm), true},
		{"APNs' sandbox may be meant", []*pb.DestinationStatus{sick("production")}, chunk(apns), true},
		{"APNs has no third environment", []*pb.DestinationStatus{sick("production"), sick("sandbox")}, chunk(apns), false},
	} {
		o := newOutlook([]*pb.LaneStatus{bulk(test.chunk.Platform, 0, test.of...)}, test.chunk.Platform)
		if !o["shop"].lets(test.chunk, true) {
			t.Errorf("%s: not even for a taste", test.why)
		}
		if got := o["shop"].lets(test.chunk, false); got != test.lets {
			t.Errorf("%s: %v", test.why, got)
		}
	}
}
