package letters

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Asked follows the replays that were asked for, as belfry.control has them, and what became of each on each platform. It
// is safe for concurrent use.
type Asked struct {
	view *stream.View
	log  *slog.Logger

	mu      sync.Mutex
	replays map[string]*pb.Replay // by app/id
	ended   map[string]map[pb.Platform]*pb.ReplayProgress
	changed chan struct{} // closed and replaced with every change
}

// NewAsked makes a view. It starts with Run.
func NewAsked(k *stream.Kafka) *Asked {
	a := &Asked{
		log: k.Log, replays: map[string]*pb.Replay{}, ended: map[string]map[pb.Platform]*pb.ReplayProgress{},
		changed: make(chan struct{}),
	}
	a.view = stream.NewView(k, schemas.TopicControl, a.apply)
	return a
}

// Run follows the topic until ctx is done.
func (a *Asked) Run(ctx context.Context) error { return a.view.Run(ctx) }

// CatchUp waits until all that is on the topic now has been read.
func (a *Asked) CatchUp(ctx context.Context) error { return a.view.CatchUp(ctx) }

func (a *Asked) apply(r stream.ViewRecord) {
	app, id, platform, ok := schemas.SplitReplayKey(r.Key)
	if !ok {
		return // another kind of word
	}
	c := &pb.Control{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		a.log.Error("a replay's record on control cannot be read; what it was before stays", "name", string(r.Key), "offset", r.Offset, "err", err)
		return
	}
	key := string(schemas.Key(app, id))
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case c.GetReplay() != nil:
		a.replays[key] = c.GetReplay()
	case c.GetReplayEnded() != nil:
		if a.ended[key] == nil {
			a.ended[key] = map[pb.Platform]*pb.ReplayProgress{}
		}
		a.ended[key][platform] = c.GetReplayEnded()
	case platform == 0:
		delete(a.replays, key) // a tombstone
		delete(a.ended, key)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// Get is a replay, or nil, and what tells that any has changed since. It must not be changed.
func (a *Asked) Get(app, id string) (*pb.Replay, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.replays[string(schemas.Key(app, id))], a.changed
}

// Ended is what became of a replay on a platform, or nil while that is open. It must not be changed.
func (a *Asked) Ended(app, id string, p pb.Platform) *pb.ReplayProgress {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended[string(schemas.Key(app, id))][p]
}

// All lists an app's replays, in no order.
func (a *Asked) All(app string) []*pb.Replay {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*pb.Replay
	for _, r := range a.replays {
		if r.App == app {
			all = append(all, r)
		}
	}
	return all
}

// Platforms of a replay: those of its filter, or all.
func Platforms(r *pb.Replay) []pb.Platform {
	if p := r.GetFilter().GetPlatforms(); len(p) > 0 {
		return p
	}
	return schemas.Platforms
}
