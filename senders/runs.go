package senders

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Runs is what lanes know of the campaigns: each one's message, compiled once, and its state at this moment.
type Runs struct {
	view     *stream.View
	k        *stream.Kafka
	platform pb.Platform

	mu   sync.RWMutex // guards what follows
	runs map[runKey]*run
	// unknown remembers when the view, caught up, did not have a run: no delivery written before that can be of one. So a
	// backlog of such does not ask Kafka for each.
	unknown map[runKey]time.Time

	// asking lets one ask at a time: it holds whoever does.
	asking chan struct{}
}

type runKey struct{ app, run string }

const keepUnknown = 1024

var errUnknownRun = errors.New("no campaign of this name")

// run is one campaign as the view has it.
type run struct {
	state atomic.Int32
	// changed is when the campaign was last written, Unix ms.
	changed atomic.Int64
	// rate is its pace on this platform, requests a second, a float64's bits.
	rate atomic.Uint64
	flow bucket
	// source is the message as it lies on the topic, to notice that it changed: a draft's may.
	source  *pb.Message
	message func() (*message.Compiled, error)
}

// State is safe to ask from any goroutine; it changes under way.
func (r *run) State() pb.CampaignState { return pb.CampaignState(r.state.Load()) }

// pace is the campaign's rate on this platform, requests a second, for all instances. 0: none.
func (r *run) pace() float64 { return math.Float64frombits(r.rate.Load()) }

// pausedFor is how long a delivery of a campaign that is paused stays in a retry topic: longer the longer the pause lasts,
// so that it does not go round and round. It comes back as soon as the campaign goes on.
func (r *run) pausedFor(now time.Time) time.Duration {
	return min(max(now.Sub(time.UnixMilli(r.changed.Load())), parkShortest), parkLongest)
}

// NewRuns makes the view. It starts with Run.
func NewRuns(k *stream.Kafka, p pb.Platform) *Runs {
	r := &Runs{k: k, platform: p, asking: make(chan struct{}, 1), runs: map[runKey]*run{}, unknown: map[runKey]time.Time{}}
	r.view = stream.NewView(k, schemas.TopicCampaigns, r.apply)
	return r
}

// Run follows belfry.campaigns until ctx is done.
func (r *Runs) Run(ctx context.Context) error { return r.view.Run(ctx) }

// Ready is closed once what was on the topic at the start has been read.
func (r *Runs) Ready() <-chan struct{} { return r.view.Ready() }

// lookup finds the run of a delivery written at the given time, and waits for the view to catch up before it says
// errUnknownRun: a delivery may overtake its campaign's record, which lies on another topic.
func (r *Runs) lookup(ctx context.Context, app, id string, written time.Time) (*run, error) {
	key := runKey{app, id}
	if found, known := r.have(key, written); known {
		return found, missing(found)
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for campaign %s/%s: %w", app, id, context.Cause(ctx))
	case r.asking <- struct{}{}:
	}
	defer func() { <-r.asking }()
	if found, known := r.have(key, written); known {
		return found, missing(found)
	}
	asked := time.Now()
	if err := r.view.CatchUp(ctx); err != nil {
		return nil, fmt.Errorf("wait for campaign %s/%s: %w", app, id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.runs[key]
	if found == nil {
		if len(r.unknown) >= keepUnknown {
			clear(r.unknown)
		}
		r.unknown[runKey{strings.Clone(app), strings.Clone(id)}] = asked
	}
	return found, missing(found)
}

// have finds what is known by now: a run, or nil for one that certainly was not there.
func (r *Runs) have(key runKey, written time.Time) (found *run, known bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if found = r.runs[key]; found != nil {
		return found, true
	}
	at, known := r.unknown[key]
	return nil, known && written.Before(at)
}

// held is a run as far as it is known now, or nil.
func (r *Runs) held(key runKey) *run {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.runs[key]
}

func missing(r *run) error {
	if r == nil {
		return errUnknownRun
	}
	return nil
}

// apply takes one record of the topic.
func (r *Runs) apply(rec stream.ViewRecord) {
	parts := schemas.SplitKey(rec.Key, 2)
	if len(parts) != 2 {
		return // only the launcher writes here, and it keys by app/campaign
	}
	key := runKey{parts[0], parts[1]}
	if rec.Value == nil {
		r.mu.Lock()
		delete(r.runs, key)
		r.mu.Unlock()
		return
	}
	c := &pb.Campaign{}
	if err := proto.Unmarshal(rec.Value, c); err != nil {
		r.k.Log.Error("campaign cannot be read: its record is not a belfry.v1.Campaign; what it was before stays in force", "campaign", string(rec.Key), "partition", rec.Partition, "err", err)
		return
	}
	r.set(key, c, rec.Timestamp)
}

func (r *Runs) set(key runKey, c *pb.Campaign, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unknown, key)
	known := r.runs[key]
	if known == nil || !proto.Equal(known.source, c.Message) {
		source := c.Message
		known = &run{source: source, message: sync.OnceValues(func() (*message.Compiled, error) {
			return message.Compile(source, message.Campaign)
		})}
		r.runs[key] = known
	}
	known.changed.Store(at.UnixMilli())
	known.rate.Store(math.Float64bits(schemas.PlatformPace(c, r.platform)))
	known.state.Store(int32(c.State))
}
