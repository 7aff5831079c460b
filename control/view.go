package control

import (
	"context"
	"log/slog"
	"maps"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// View follows the restraints on belfry.control. Each role and platform has its own, so that none waits for another's.
// Get and All are safe from any goroutine, and cheap enough for every request.
type View struct {
	view *stream.View
	log  *slog.Logger
	// inForce is replaced, never changed.
	inForce atomic.Pointer[map[Name]*pb.Restraint]
}

// NewView makes a view. It starts with Run.
func NewView(k *stream.Kafka) *View {
	v := &View{log: k.Log}
	v.inForce.Store(&map[Name]*pb.Restraint{})
	v.view = stream.NewView(k, schemas.TopicControl, v.apply)
	return v
}

// Run follows the topic until ctx is done.
func (v *View) Run(ctx context.Context) error { return v.view.Run(ctx) }

// Ready is closed once what was on the topic at the start has been read.
func (v *View) Ready() <-chan struct{} { return v.view.Ready() }

// CatchUp waits until all that is on the topic now has been read.
func (v *View) CatchUp(ctx context.Context) error { return v.view.CatchUp(ctx) }

// Get is what is in force for one part of the traffic, or nil: its getters then say that nothing is. It must not be
// changed.
func (v *View) Get(n Name) *pb.Restraint { return (*v.inForce.Load())[n] }

// All is everything in force. It must not be changed.
func (v *View) All() map[Name]*pb.Restraint { return *v.inForce.Load() }

func (v *View) apply(r stream.ViewRecord) {
	c := &pb.Control{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		v.log.Error("a record of control cannot be read; what was in force before stays", "name", string(r.Key), "offset", r.Offset, "err", err)
		return
	}
	name := Name(r.Key)
	if _, err := Parse(string(r.Key)); err != nil {
		return // another kind of word, or of another release
	}
	next := maps.Clone(*v.inForce.Load())
	if c.GetRestraint() == nil {
		delete(next, name)
	} else {
		next[name] = c.GetRestraint()
	}
	v.inForce.Store(&next)
}

// Record is the value that puts a restraint into force. No value lifts it.
func Record(r *pb.Restraint) ([]byte, error) {
	return proto.Marshal(&pb.Control{Kind: &pb.Control_Restraint{Restraint: r}})
}
