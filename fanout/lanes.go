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
	view  *stream.View
	ready <-chan struct{} // the view's
	now   func() time.Time

	mu    sync.RWMutex
	byKey map[string]laneWord
}

// laneWord is one status, and when it was heard by this process's clock: the lane's own may be off by more than a word's
// life, and then all that it says would be out of date, or what it said last count for too long.
type laneWord struct {
	*pb.LaneStatus
	heard time.Time
}

func newLanes(k *stream.Kafka, now func() time.Time) *lanes {
	l := &lanes{now: now, byKey: map[string]laneWord{}}
	l.view = stream.NewView(k, schemas.TopicLanes, l.apply)
	l.ready = l.view.Ready()
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
	l.byKey[string(r.Key)] = laneWord{status, l.heard(status)}
}

// heard is when a word was said, of one that lay on the topic before this process looked, or else this moment.
func (l *lanes) heard(s *pb.LaneStatus) time.Time {
	now := l.now()
	select {
	case <-l.ready:
		return now
	default:
	}
	if said := time.UnixMilli(s.At); said.Before(now) {
		return said
	}
	return now
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
// to bring back. A lane has the same budget (senders/budget.go).
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
		if s.Platform == p && now.Sub(s.heard) < statusLife {
			fresh = append(fresh, s.LaneStatus)
		}
	}
	return fresh
}
