package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// watch looks at the deployment while it is struck: whether lanes stand still that need not, and what memory it takes.
type watch struct {
	w     *world
	chaos *chaos

	mu sync.Mutex // guards all below
	// stalls are those after events of ours; held those after a provider was sick, when its breaker may wait.
	stalls, held map[string]stall
	rss          map[string]int // most, MiB, by role
	looks        int
}

// stall is the longest time that a lane had work, a provider that was well, and no progress.
type stall struct {
	longest time.Duration
	at      time.Time
	after   string // the last event that touched the lane
}

const lookEvery = 250 * time.Millisecond

func newWatch(w *world, c *chaos) *watch {
	return &watch{w: w, chaos: c, stalls: map[string]stall{}, held: map[string]stall{}, rss: map[string]int{}}
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
	wg.Wait()
	return nil
}

// lane measures one platform's bulk lane. Its clock starts anew with each answer of the provider, when nothing waits, and
// with each event that touches the lane; while one lasts it stands.
func (o *watch) lane(ctx context.Context, adm *kadm.Client, platform, topic string) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	answers, since := int64(-1), time.Now()
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
			since, answers = began, n
		}
		if last.end.After(since) {
			since = last.end
		}
		o.note(platform, began.Sub(since), last)
	}
}

// markers is what a topic of twelve partitions may show as backlog when everything on it is done: each transaction's end
// takes an offset.
const markers = 24

func (o *watch) note(platform string, stood time.Duration, last event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks++
	stalls := o.stalls
	if last.provider {
		stalls = o.held
	}
	if stood > stalls[platform].longest {
		stalls[platform] = stall{stood, time.Now(), last.kind + " " + last.target + " " + last.note}
	}
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
