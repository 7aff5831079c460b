// Package lanes is what the lanes say of themselves on belfry.lanes, and processes of what they were told, for those who go by it.
package lanes

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Life is how long a lane's word counts. It speaks once a second.
const Life = 10 * time.Second

// View is what each instance of each lane said last. It is safe from any goroutine.
type View struct {
	view  *stream.View
	ready <-chan struct{} // the view's
	now   func() time.Time

	mu    sync.RWMutex
	byKey map[string]word
}

// word is one status, and when it was heard by this process's clock: the lane's own may be off by more than a word's life, and
// then all that it says would be out of date, or what it said last count for too long.
type word struct {
	*pb.LaneStatus
	heard time.Time
}

// NewView makes a view. It starts with Run.
func NewView(k *stream.Kafka, now func() time.Time) *View {
	v := &View{now: now, byKey: map[string]word{}}
	v.view = stream.NewView(k, schemas.TopicLanes, v.apply)
	v.ready = v.view.Ready()
	return v
}

// Run follows the topic until ctx is done.
func (v *View) Run(ctx context.Context) error { return v.view.Run(ctx) }

// Ready is closed once what was on the topic at the start has been read.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Fresh are the statuses heard within Life, in no order. They must not be changed.
func (v *View) Fresh() []*pb.LaneStatus { return v.Within(Life) }

// Within are those heard within so long, as Fresh.
func (v *View) Within(d time.Duration) []*pb.LaneStatus {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	var fresh []*pb.LaneStatus
	for _, w := range v.byKey {
		if w.Peer == nil && now.Sub(w.heard) < d {
			fresh = append(fresh, w.LaneStatus)
		}
	}
	return fresh
}

func (v *View) apply(r stream.ViewRecord) {
	status := &pb.LaneStatus{}
	v.mu.Lock()
	defer v.mu.Unlock()
	if r.Value == nil || proto.Unmarshal(r.Value, status) != nil {
		delete(v.byKey, string(r.Key))
		return
	}
	v.byKey[string(r.Key)] = word{status, v.heard(status)}
}

// heard is when a word was said, of one that lay on the topic before this process looked, or else this moment.
func (v *View) heard(s *pb.LaneStatus) time.Time {
	now := v.now()
	select {
	case <-v.ready:
		return now
	default:
	}
	if said := time.UnixMilli(s.At); said.Before(now) {
		return said
	}
	return now
}
