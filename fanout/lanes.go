package fanout

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// statusLife is how long a lane's word counts. It speaks once a second.
const statusLife = 10 * time.Second

// lanes is what the bulk lanes said of themselves last, by instance.
type lanes struct {
	view *stream.View

	mu    sync.RWMutex
	byKey map[string]*pb.LaneStatus
}

func newLanes(k *stream.Kafka) *lanes {
	l := &lanes{byKey: map[string]*pb.LaneStatus{}}
	l.view = stream.NewView(k, schemas.TopicLanes, l.apply)
	return l
}

func (l *lanes) apply(r stream.ViewRecord) {
	status := &pb.LaneStatus{}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Value == nil || proto.Unmarshal(r.Value, status) != nil || status.Class != pb.Class_CLASS_BULK {
		delete(l.byKey, string(r.Key))
		return
	}
	l.byKey[string(r.Key)] = status
}

// drainRate is how many deliveries a second a platform's instances finish together.
func (l *lanes) drainRate(p pb.Platform, now time.Time) float64 {
	var rate float64
	for _, s := range l.fresh(p, now) {
		rate += s.DrainRate
	}
	return rate
}

// parkBudget is how many of an app's deliveries may be parked at one destination before its chunks wait. It is what an
// outage takes in, whatever its length: more of it would let the app's other destinations go on for longer, and have more
// to bring back.
const parkBudget = 50_000

// shut says that more deliveries of an app on a platform would only be parked too: every destination waits or is stopped,
// with deliveries parked, or one has its budget of them. Without any parked, a delivery may be what it takes to find that a
// destination is well again.
func (l *lanes) shut(app string, p pb.Platform, now time.Time) bool {
	all, open := 0, 0
	parked := map[string]uint64{}
	for _, s := range l.fresh(p, now) {
		for _, d := range s.Destinations {
			if d.App != app {
				continue
			}
			all++
			if d.State == pb.DestinationState_DESTINATION_STATE_OPEN || d.Parked == 0 {
				open++
			}
			if parked[d.Name] += d.Parked; parked[d.Name] >= parkBudget {
				return true
			}
		}
	}
	return all > 0 && open == 0
}

func (l *lanes) fresh(p pb.Platform, now time.Time) []*pb.LaneStatus {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var fresh []*pb.LaneStatus
	for _, s := range l.byKey {
		if s.Platform == p && now.Sub(time.UnixMilli(s.At)) < statusLife {
			fresh = append(fresh, s)
		}
	}
	return fresh
}
