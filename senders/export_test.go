package senders

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
)

// Model is a bulk lane of a platform without its log: destinations with their breakers, limits and rates, the retry topics in
// front of them, and restarts of the process, under a bubble's clock. Its provider is the real one but for the wire.
type Model struct {
	Provider
	// Answer is the service: what it answers to a request, after as long as that takes.
	Answer func(ctx context.Context, r *Request) wire.Result
	// Ended hears of each delivery's end, once.
	Ended func(d *pb.Delivery, o pb.Outcome, at time.Time)
	// Rand draws the retries' waits.
	Rand *rand.Rand

	life   context.Context
	stop   context.CancelFunc
	common common
	valve  *valve
	all    map[Destination]*destination

	mu   sync.Mutex
	open map[*job]bool
	// topic is what waits on the retry topics.
	topic    []hopping
	out      sync.WaitGroup
	messages map[string]*message.Compiled
}

type hopping struct {
	d   *pb.Delivery
	at  time.Time
	due time.Time
}

// may says that one that failed may come back before its time.
func (w *hopping) may(now time.Time) bool {
	return w.d.EarlyAt > 0 && now.UnixMilli() >= w.d.EarlyAt
}

// Start begins the process's life.
func (m *Model) Start(messages map[string]*message.Compiled) {
	m.messages, m.open = messages, map[*job]bool{}
	m.boot()
}

func (m *Model) boot() {
	m.life, m.stop = context.WithCancel(context.Background())
	m.common = common{provider: m, timeout: 10 * time.Second, life: m.life, log: slog.New(slog.DiscardHandler)}
	m.common.finish = m.finish
	m.valve = newValve(m.Platform(), pb.Class_CLASS_BULK, func(control.Name) *pb.Restraint { return nil }, NewRates())
	m.valve.own(1, 1)
	m.all = map[Destination]*destination{}
}

// Kill ends the process and starts the next: what was queued or in flight comes again, what was learnt is gone.
func (m *Model) Kill() {
	m.stop()
	m.common.pumps.Wait()
	m.mu.Lock()
	var again []*pb.Delivery
	for j := range m.open {
		again = append(again, j.delivery)
	}
	clear(m.open)
	m.mu.Unlock()
	slices.SortFunc(again, func(a, b *pb.Delivery) int { return int(a.CreatedAt - b.CreatedAt) })
	m.boot()
	m.Push(again...)
}

// Send implements Provider in place of the wire.
func (m *Model) Send(batch []*Request) {
	for _, r := range batch {
		life := m.life
		m.out.Go(func() {
			ctx, cancel := context.WithTimeout(life, r.Timeout)
			defer cancel()
			res := m.Answer(ctx, r)
			if ctx.Err() != nil {
				res = wire.Result{Err: ctx.Err(), Sent: true}
			}
			if life.Err() == nil {
				res.Request = &r.Request
				r.Handler.Answered([]wire.Result{res})
			}
		})
	}
}

// Push brings deliveries to their destinations.
func (m *Model) Push(ds ...*pb.Delivery) {
	now := time.Now()
	for _, d := range ds {
		where, err := m.Destination(d)
		if err != nil {
			panic(err)
		}
		to := m.all[where]
		if to == nil {
			to = newDestination(where, m.valve.gates(where, m.Rate(where)), &m.common)
			m.all[where] = to
		}
		if due := time.UnixMilli(d.DueAt); d.Parked && now.Before(due) {
			to.unpark(due, d.Asked || d.Attempt > 0)
		}
		j := &job{
			name: d.Run, expires: d.ExpiresAt, created: d.CreatedAt, ctx: context.Background(), again: d.Asked || d.Attempt > 0, early: isEarly(d, now),
			task: &stream.Task{Value: []byte("record")}, delivery: d, message: m.messages[d.Run],
		}
		m.mu.Lock()
		m.open[j] = true
		m.mu.Unlock()
		to.push([]*job{j}, now)
	}
}

func (m *Model) finish(ends []ended, now time.Time) {
	for _, e := range ends {
		m.mu.Lock()
		was := m.open[e.job]
		delete(m.open, e.job)
		m.mu.Unlock()
		if !was {
			continue // of a life before
		}
		switch e.verdict.Next {
		case End:
			m.Ended(e.job.delivery, e.verdict.Outcome, now)
		case Later, putOff:
			m.later(e.job, e.verdict, now)
		}
	}
}

// later is what the lane's later does, without its records.
func (m *Model) later(j *job, v Verdict, now time.Time) {
	d := j.delivery
	if v.Next == Later && j.spent(v, now) {
		m.Ended(d, pb.Outcome_OUTCOME_DEAD, now)
		return
	}
	if j.tooEarly(v, now) {
		j.asked = false
	}
	_, due := j.until(v, now)
	j.waits(v, due, now)
	m.mu.Lock()
	m.topic = append(m.topic, hopping{d, now, due})
	m.mu.Unlock()
}

// Step lets one tick go by, and brings back what is due or wanted.
func (m *Model) Step(look bool) {
	time.Sleep(tickEvery)
	synctest.Wait()
	now := time.Now()
	all := make([]*destination, 0, len(m.all))
	for _, d := range m.all {
		all = append(all, d)
	}
	tend(all, now, budget{share{windowRecords / shareOf, windowBytes / shareOf}, schemas.ParkBudget, laneBudget})
	m.mu.Lock()
	topic := m.topic
	m.topic = nil
	m.mu.Unlock()
	failed := map[Destination]int{}
	for _, w := range topic {
		if where, _ := m.Destination(w.d); w.d.EarlyAt > 0 {
			failed[where]++
		}
	}
	var back []*pb.Delivery
	left := slices.DeleteFunc(topic, func(w hopping) bool {
		where, _ := m.Destination(w.d)
		to := m.all[where]
		wanted := look && (w.d.Parked && (to == nil || to.wants(w.d.Run, w.d.Asked || w.d.Attempt > 0, now)) ||
			w.may(now) && to != nil && to.recalls(w.d.Run, w.at, failed[where], now))
		if now.Before(w.due) && !wanted {
			return false
		}
		back = append(back, w.d)
		return true
	})
	m.mu.Lock()
	m.topic = append(left, m.topic...)
	m.mu.Unlock()
	m.Push(back...)
}

// Stop ends it.
func (m *Model) Stop() {
	m.stop()
	m.common.pumps.Wait()
	m.out.Wait()
}

// Tell is where its destinations stand, for whoever looks into a seed.
func (m *Model) Tell() (all []string) {
	for _, d := range m.all {
		d.mu.Lock()
		b := &d.breaker
		all = append(all, fmt.Sprintf("%s %s probes %d, queued %d (asked before %d), suspense %d, out %d of %d (late %d), rate %.1f (%d), on retry %d",
			b.state, b.reason, b.probes, d.queue.len(), d.queue.again, len(d.suspense.list), d.flight.n, d.slots(), d.flight.late, d.known.rate(), d.known.state, len(m.topic)))
		d.mu.Unlock()
	}
	return all
}
