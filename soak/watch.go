package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// watch looks at the deployment while it is struck: whether lanes stand still that need not, and what memory it takes.
type watch struct {
	w       *world
	chaos   *chaos
	starved starved
	lanes   *lanes.View

	mu sync.Mutex // guards all below
	// stalls are those of I5; held those in which a lane itself waits for a destination that was sick, by its breaker.
	stalls, held map[string]stall
	rss          map[string]int       // most, MiB, by role
	results      map[result]time.Time // when each was seen
}

// stall is the longest time that a lane had work, a provider that was well, and no progress.
type stall struct {
	longest  time.Duration // without what the machine withheld
	withheld time.Duration
	at       time.Time
	after    string // the last event that touched the lane
}

const lookEvery = 250 * time.Millisecond

func newWatch(w *world, c *chaos) *watch {
	return &watch{w: w, chaos: c, lanes: lanes.NewView(w.cluster(), time.Now), stalls: map[string]stall{}, held: map[string]stall{}, rss: map[string]int{}, results: map[result]time.Time{}}
}

// run looks until ctx ends.
func (o *watch) run(ctx context.Context) error {
	client, err := o.w.cluster().Client()
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	var wg sync.WaitGroup
	for _, p := range schemas.Platforms {
		wg.Go(func() { o.lane(ctx, adm, schemas.PlatformName(p), schemas.TopicSend(p, 2)) })
	}
	wg.Go(func() { o.memory(ctx) })
	wg.Go(func() { o.starved.run(ctx) })
	follow := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				o.chaos.wrong("%v", err)
			}
		})
	}
	follow(o.lanes.Run)
	for _, p := range schemas.Platforms {
		follow(stream.NewView(o.w.cluster(), schemas.TopicResults(p), func(r stream.ViewRecord) { o.result(p, r) }).Run)
	}
	wg.Wait()
	return nil
}

// lane measures one platform's bulk lane. Its clock starts anew with each answer of the provider, when nothing waits, and
// with each event that touches the lane; while one lasts it stands.
func (o *watch) lane(ctx context.Context, adm *kadm.Client, platform, topic string) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	answers, since, heldSince := int64(-1), time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		look, cancel := context.WithTimeout(ctx, 2*time.Second)
		backlog, err := stream.Backlog(look, o.w.cluster(), adm, "senders."+platform+".bulk", topic)
		cancel()
		sum, err2 := o.w.receipts()
		if err != nil || err2 != nil {
			since = time.Now() // a broker is away, which is an event
			continue
		}
		last, lasts := o.touched(platform, began)
		if n := total(sum, platform); n != answers || lasts || backlog <= markers {
			since, heldSince, answers = began, began, n
		}
		if last.end.After(since) {
			since, heldSince = last.end, last.end
		}
		if o.waits(platform) {
			since = began
		}
		o.note(o.stalls, platform, since, began, last)
		o.note(o.held, platform, heldSince, began, last)
	}
}

// markers is what a topic of twelve partitions may show as backlog when everything on it is done: each transaction's end
// takes an offset.
const markers = 24

func (o *watch) note(stalls map[string]stall, platform string, from, to time.Time, last event) {
	withheld := o.starved.during(from, to)
	stood := to.Sub(from) - withheld
	o.mu.Lock()
	defer o.mu.Unlock()
	if stood > stalls[platform].longest {
		stalls[platform] = stall{stood, withheld, to, last.kind + " " + last.target + " " + last.note}
	}
}

// result is where a record of results lies.
type result struct {
	platform  pb.Platform
	partition int32
	offset    int64
}

func (o *watch) result(p pb.Platform, r stream.ViewRecord) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.results[result{p, r.Partition, r.Offset}] = time.Now()
}

// committed is when results were seen committed by the harness's clock, or this moment for what has not come yet.
func (o *watch) committed(p pb.Platform, r *kgo.Record) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, seen := o.results[result{p, r.Partition, r.Offset}]; seen {
		return at
	}
	return time.Now()
}

// waits tells whether a lane of the platform holds a destination for sick, or did a moment ago.
func (o *watch) waits(platform string) bool {
	for _, s := range o.lanes.Within(5 * time.Second) {
		if schemas.PlatformName(s.Platform) != platform {
			continue
		}
		for _, d := range s.Destinations {
			if d.State != pb.DestinationState_DESTINATION_STATE_OPEN && d.State != pb.DestinationState_DESTINATION_STATE_UNSPECIFIED {
				return true
			}
		}
	}
	return false
}

// touched is the last event that touched a lane, and whether any does now.
func (o *watch) touched(platform string, now time.Time) (last event, lasts bool) {
	for _, e := range o.chaos.all() {
		if !e.touches(platform) || !e.senders && !e.provider {
			continue
		}
		if last.kind == "" || e.end.After(last.end) {
			last = e
		}
		lasts = lasts || e.end.IsZero() || e.end.After(now)
	}
	return last, lasts
}

func total(s simulator.Summary, platform string) (n int64) {
	for _, answers := range s.ByStatus[platform] {
		n += answers
	}
	return n
}

func (o *watch) memory(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, l := range layout {
			for _, i := range o.w.of(l.role) {
				n := i.rss()
				o.mu.Lock()
				o.rss[l.role] = max(o.rss[l.role], n)
				o.mu.Unlock()
			}
		}
	}
}
