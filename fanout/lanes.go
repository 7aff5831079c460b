package fanout

import (
	"iter"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// bulkLanes are those of the statuses that a platform's bulk lane said.
func bulkLanes(statuses []*pb.LaneStatus, p pb.Platform) iter.Seq[*pb.LaneStatus] {
	return func(yield func(*pb.LaneStatus) bool) {
		for _, s := range statuses {
			if s.Platform == p && s.Class == pb.Class_CLASS_BULK && !yield(s) {
				return
			}
		}
	}
}

// drainRate is how many deliveries a second a platform's instances finish together.
func drainRate(statuses []*pb.LaneStatus, p pb.Platform) float64 {
	var rate float64
	for s := range bulkLanes(statuses, p) {
		rate += s.DrainRate
	}
	return rate
}

// shut says that more deliveries of an app on a platform would only be parked too: every destination waits or is stopped,
// with deliveries parked, or one has its budget of them. Without any parked, a delivery may be what it takes to find that a
// destination is well again.
func shut(statuses []*pb.LaneStatus, app string, p pb.Platform) bool {
	all, open := 0, 0
	parked := map[string]uint64{}
	for s := range bulkLanes(statuses, p) {
		for _, d := range s.Destinations {
			if d.App != app {
				continue
			}
			all++
			if d.State == pb.DestinationState_DESTINATION_STATE_OPEN || d.Parked == 0 {
				open++
			}
			if parked[d.Name] += d.Parked; parked[d.Name] >= schemas.ParkBudget {
				return true
			}
		}
	}
	return all > 0 && open == 0
}
