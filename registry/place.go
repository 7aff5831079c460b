package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// placeKey is where belfry.control says in which Redis, and under which prefix, the registry is kept.
const placeKey = "registry"

// Place follows where the registry is kept, as those who keep it say. It is safe for concurrent use.
type Place struct {
	view *stream.View
	said atomic.Pointer[pb.RegistryPlace]
}

// NewPlace makes a follower. It starts with Run.
func NewPlace(k *stream.Kafka) *Place {
	p := &Place{}
	p.view = stream.NewView(k, schemas.TopicControl, p.apply)
	return p
}

// Run follows the topic until ctx is done.
func (p *Place) Run(ctx context.Context) error { return p.view.Run(ctx) }

// Ready is closed once what was on the topic at the start has been read.
func (p *Place) Ready() <-chan struct{} { return p.view.Ready() }

func (p *Place) apply(r stream.ViewRecord) {
	if string(r.Key) != placeKey {
		return
	}
	c := &pb.Control{}
	if r.Value == nil || proto.Unmarshal(r.Value, c) != nil {
		p.said.Store(nil) // unknown, as before the first
		return
	}
	p.said.Store(c.GetRegistry())
}

// Sound tells why reads of the registry would fail, or nil: it is not there, or is not the one that is kept. Its error names the
// mend.
func (g *Registry) Sound(ctx context.Context, p *Place) error {
	build, err := g.build(ctx)
	if err != nil && !errors.Is(err, ErrNotBuilt) {
		return err
	}
	kept := p.said.Load()
	switch {
	case kept != nil && kept.Prefix != g.redis.Prefix:
		return fmt.Errorf("the registry of devices is kept under redis.prefix %q, as instance %s says, and this process reads under %q: give all the same",
			kept.Prefix, kept.Instance, g.redis.Prefix)
	case kept != nil && err == nil && kept.Build != build:
		return fmt.Errorf("the registry of devices in this process's Redis is not the one that instance %s keeps: give all the same redis.addresses", kept.Instance)
	}
	return err
}

// build names what filled the view, or is ErrNotBuilt.
func (g *Registry) build(ctx context.Context) (string, error) {
	return g.read(ctx, noReads)
}

// tell writes where the registry is kept.
func (g *Registry) tell(ctx context.Context, k *stream.Kafka, build string) error {
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Registry{Registry: &pb.RegistryPlace{
		Prefix: g.redis.Prefix, Build: build, Instance: k.Instance, At: time.Now().UnixMilli(),
	}}})
	if err != nil {
		return fmt.Errorf("encode where the registry is: %w", err)
	}
	record := &kgo.Record{Topic: k.Topic(schemas.TopicControl), Key: []byte(placeKey), Value: value}
	if err := k.Write(ctx, record); err != nil {
		return fmt.Errorf("write to %s where the registry is: %w", record.Topic, err)
	}
	return nil
}

// herald has an Applier say where it keeps the registry, whenever that is not what is said.
type herald struct {
	place  *Place
	next   time.Time // no sooner: others may say it just now, or the other thing
	differ bool      // another prefix was said, and that is logged
}

const heraldEvery = 30 * time.Second

// look compares what is said with what is, and says it.
func (h *herald) look(ctx context.Context, a *Applier) {
	build, err := a.g.build(ctx)
	if err != nil || time.Now().Before(h.next) {
		return // keepBuilt tells
	}
	said, own := h.place.said.Load(), a.g.redis.Prefix
	if said.GetPrefix() == own && said.GetBuild() == build {
		h.differ = false
		return
	}
	if said != nil && said.Prefix != own && said.Instance != a.k.Instance && !h.differ {
		h.differ = true
		a.log.Warn("the registry was last kept under another redis.prefix; if that instance still runs, each of the two keeps a part of the devices: give all the same",
			"prefix", own, "other_prefix", said.Prefix, "other_instance", said.Instance)
	}
	h.next = time.Now().Add(heraldEvery)
	asked, cancel := context.WithTimeout(ctx, heraldTimeout)
	defer cancel()
	if err := a.g.tell(asked, a.k, build); err != nil && ctx.Err() == nil && !a.k.Away() {
		a.log.Warn("could not say where the registry is kept; trying again", "err", err)
	}
}

const heraldTimeout = 5 * time.Second
