package fanout

import (
	"iter"

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

// stuck is how many deliveries of a platform's backlog wait in its instances for a destination that takes nothing. They stand
// before no other: they are put off, or end, and their lane drains no slower for them.
func stuck(statuses []*pb.LaneStatus, p pb.Platform) (n int64) {
	for s := range bulkLanes(statuses, p) {
		for _, d := range s.Destinations {
			if d.State != pb.DestinationState_DESTINATION_STATE_OPEN {
				n += int64(d.Queued)
			}
		}
	}
	return n
}
