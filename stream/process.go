package stream

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// process is what this process knows of one cluster: whether it answers, and which consumers and views it runs there. All
// clients meet the same outage, and one voice tells of it: Watch.
type process struct {
	mu    sync.Mutex
	since time.Time // when Kafka was noticed to be away; zero while it answers
	runs  map[healthy]struct{}
	// broker is the cluster, where that is embedded here.
	broker *Embedded
}

// healthy is a Consumer, a View or an embedded broker.
type healthy interface{ Health() error }

// processes are by the clusters' addresses and prefix: a Kafka is copied freely.
var processes sync.Map

func (k *Kafka) process() *process {
	p, _ := processes.LoadOrStore(strings.Join(k.Brokers, ",")+"/"+k.Prefix, &process{runs: map[healthy]struct{}{}})
	return p.(*process)
}

// running counts one among those that Health asks, until ended is called.
func (k *Kafka) running(h healthy) (ended func()) {
	p := k.process()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[h] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.runs, h)
	}
}

// embeds makes a broker of this process the one that Health and Refuses ask, until ended is called.
func (k *Kafka) embeds(e *Embedded) (ended func()) {
	p := k.process()
	set := func(e *Embedded) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.broker = e
	}
	set(e)
	return func() { set(nil) }
}

// Away says that Kafka does not answer this process, as far as Watch knows.
func (k *Kafka) Away() bool {
	p := k.process()
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.since.IsZero()
}

// Refuses is why Kafka takes no records now, or nil, as far as this process knows it: who would write need not wait to be told.
// It is safe for concurrent use.
func (k *Kafka) Refuses() error {
	p := k.process()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		return k.away(p.since)
	}
	if p.broker != nil {
		return p.broker.refuses()
	}
	return nil
}

func (k *Kafka) away(since time.Time) error {
	return fmt.Errorf("no answer from Kafka at %v for %v", k.Brokers, time.Since(since).Round(time.Second))
}

// went notes whether Kafka answers. changed says that it is not as it was, and since when it was away, if it was.
func (p *process) went(away bool, now time.Time) (changed bool, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if away == !p.since.IsZero() {
		return false, p.since
	}
	since, p.since = p.since, time.Time{}
	if away {
		p.since = now
	}
	return true, since
}

// Health is why something that this process runs on the cluster does not get on by itself, or nil: see Consumer.Health and
// View.Health. It is safe for concurrent use.
func (k *Kafka) Health() error {
	p := k.process()
	p.mu.Lock()
	if !p.since.IsZero() {
		defer p.mu.Unlock()
		return k.away(p.since)
	}
	runs := make([]healthy, 0, len(p.runs)+1)
	if p.broker != nil {
		runs = append(runs, p.broker)
	}
	for h := range p.runs {
		runs = append(runs, h)
	}
	p.mu.Unlock()
	var all []error
	for _, h := range runs {
		if err := h.Health(); err != nil {
			all = append(all, err)
		}
	}
	slices.SortFunc(all, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(all...)
}
