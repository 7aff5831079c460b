package senders

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Options describe a lane. All fields but the last are required.
type Options struct {
	Kafka    *stream.Kafka
	Provider Provider
	Class    pb.Class
	// Runs, Control and Rates are shared by all lanes of a platform in a process; the first two are run by whoever made them.
	Runs    *Runs
	Control *control.View
	Rates   *Rates
	// Timeout is how long one request may take. 0 means 10 s, the least that FCM asks for.
	Timeout time.Duration
}

// Lane sends the deliveries of one platform and class. It shares nothing with other lanes but the provider's tokens, the
// view of the campaigns, and with the platform's other class the rates that hold for both.
type Lane struct {
	Options
	name     string // as in slog: apns.bulk
	consumer *stream.Consumer
	budget   budget
	valve    *valve
	messages inlineMessages
	// topic is what it sends, results where the outcomes go.
	topic, results string
	common
	// putOff brings back what lies on its retry topics.
	putOff     *retry
	jobs       pool[job]
	packers    sync.Pool
	admissions sync.Pool
	// partitions is how many the topic has.
	partitions atomic.Int32
	// finished counts ends, for the drain rate.
	finished atomic.Uint64

	mu sync.Mutex // guards what follows
	// destinations are as many as the provider's configuration has: it bounds the web push origins that it names.
	destinations map[Destination]*destination
	// assignments are those with jobs, by partition.
	assignments map[int32]context.Context
}

const (
	windowRecords = 8192
	windowBytes   = 16 << 20
	// tickEvery is how soon a probe that is due, a stuck destination and the end of an assignment are noticed.
	tickEvery = 100 * time.Millisecond
	// keepJobs and keepKits are what is kept of them for the next deliveries: eight full windows' worth, and more kits than a
	// destination may have in flight.
	keepJobs = 8 * windowRecords
	keepKits = 4096
)

// NewLane makes a lane. It starts with Run.
func NewLane(o Options) *Lane {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	name := schemas.PlatformName(o.Provider.Platform()) + "." + schemas.ClassName(o.Class)
	l := &Lane{
		Options:      o,
		name:         name,
		budget:       budget{share{windowRecords / shareOf, windowBytes / shareOf}, schemas.ParkBudget, laneBudget},
		valve:        newValve(o.Provider.Platform(), o.Class, o.Control.Get, o.Rates),
		destinations: map[Destination]*destination{},
		assignments:  map[int32]context.Context{},
		topic:        schemas.TopicSend(o.Provider.Platform(), o.Class),
		results:      schemas.TopicResults(o.Provider.Platform()),
	}
	l.common = common{provider: o.Provider, timeout: o.Timeout, finish: l.finish, log: o.Kafka.Log.With("lane", name)}
	l.jobs.most, l.kits.most = keepJobs, keepKits
	l.packers.New = func() any { return &packer{lane: l} }
	l.admissions.New = func() any { return &admission{} }
	if o.Class == pb.Class_CLASS_BULK {
		l.cores = newPressure()
	}
	l.consumer = stream.NewConsumer(o.Kafka, stream.Options{
		Name:    schemas.LaneRole(o.Provider.Platform(), o.Class),
		Topics:  []string{l.topic},
		Records: windowRecords,
		Bytes:   windowBytes,
		Handle:  l.handle,
		Keep:    true,
	})
	l.valve.doubtful = l.consumer.Held
	l.putOff = newRetry(l)
	return l
}

// Run sends until ctx is done. Then it gives back what has not been begun and waits up to 5 s for the answers that are
// out. It takes no delivery before it knows the campaigns, and what operators hold back. Run it once.
func (l *Lane) Run(ctx context.Context) error {
	for _, ready := range []<-chan struct{}{l.Runs.Ready(), l.Control.Ready()} {
		select {
		case <-ctx.Done():
			return nil
		case <-ready:
		}
	}
	report, err := newReporter(l)
	if err != nil {
		return err
	}
	defer report.close()
	// Both outlive ctx until the consumer has drained: answers that are out still count, and what is queued is given back
	// by the ticks.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	l.life = life
	var ticks sync.WaitGroup
	ticks.Go(func() { l.ticks(life, report) })
	ticks.Go(func() { report.countPartitions(life) })
	err = l.consumer.Run(ctx)
	stop()
	ticks.Wait()
	for _, d := range l.all() {
		d.flying() // whoever saw life under its lock has started what it had to
	}
	l.pumps.Wait()
	return err
}

// ticks looks after the destinations until life ends.
func (l *Lane) ticks(life context.Context, report *reporter) {
	tick, second := time.NewTicker(tickEvery), time.NewTicker(time.Second)
	defer tick.Stop()
	defer second.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-tick.C:
			l.tick(time.Now())
		case <-second.C:
			report.report(time.Now())
		}
	}
}

func (l *Lane) tick(now time.Time) {
	all := l.all()
	l.valve.own(len(l.consumer.Stats()), int(l.partitions.Load()))
	if l.assignmentsEnded() {
		for _, d := range all {
			d.release()
		}
	}
	busiest := 0
	for _, d := range all {
		busiest = max(busiest, d.flying())
	}
	l.cores.adjust(busiest)
	b := l.budget
	b.parked, b.lane = int(l.valve.share(float64(b.parked))), int(l.valve.share(float64(b.lane)))
	tend(all, now, b)
}

// all lists the destinations.
func (l *Lane) all() []*destination {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*destination, 0, len(l.destinations))
	for _, d := range l.destinations {
		all = append(all, d)
	}
	return all
}

// assignmentsEnded says whether any ended since it was asked last.
func (l *Lane) assignmentsEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.assignments)
	maps.DeleteFunc(l.assignments, func(_ int32, ctx context.Context) bool { return ctx.Err() != nil })
	return len(l.assignments) < before
}

// handle brings records to their destinations. It waits only for a campaign that the view has not seen yet.
func (l *Lane) handle(ctx context.Context, tasks []*stream.Task) {
	l.note(ctx, tasks[0].Partition)
	for len(tasks) > 0 {
		if ctx.Err() != nil {
			stream.Release(tasks)
			return
		}
		n := min(len(tasks), batchAtMost)
		l.admit(ctx, tasks[:n], time.Now())
		tasks = tasks[n:]
	}
}

// note keeps an assignment's context, to notice its end. One that it replaces has ended: its jobs are given back here.
func (l *Lane) note(ctx context.Context, partition int32) {
	l.mu.Lock()
	before := l.assignments[partition]
	l.assignments[partition] = ctx
	l.mu.Unlock()
	if before != nil && before != ctx {
		for _, d := range l.all() {
			d.release()
		}
	}
}

// wants says whether a delivery that waits should come back now: its campaign and its destination go on, or it has come to its
// end. Where this instance does not know, a delivery is what it takes to find out. Of those that failed at its destination so many
// wait that may come back.
func (l *Lane) wants(p *parked, failed int, now time.Time) bool {
	if r := l.Runs.held(p.run); r != nil {
		switch {
		case r.State() == pb.CampaignState_CAMPAIGN_STATE_CANCELLED:
			return true
		case r.State() == pb.CampaignState_CAMPAIGN_STATE_PAUSED, r.pace() > 0 && (p.paced || r.flow.starved(now)):
			return false
		}
	}
	if p.failed {
		return l.destination(p.where, true).recalls(p.run.run, p.task.Timestamp, failed, now)
	}
	l.mu.Lock()
	d := l.destinations[p.where]
	l.mu.Unlock()
	if d == nil {
		_, held := l.valve.gates(p.where, 0).held()
		return held == nil && !l.valve.laneHeld()
	}
	return d.wants(p.run.run, p.again, now)
}

// destination is the one of that name. Where it is met first, ours says whether this process has a credential for it.
func (l *Lane) destination(where Destination, ours bool) *destination {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.destinations[where]
	if !ok {
		where = where.Clone()
		d = newDestination(where, l.valve.gates(where, l.Provider.Rate(where)), &l.common)
		if !ours {
			d.block(time.Now())
		}
		l.destinations[where] = d
	}
	return d
}
