package senders

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// valve is what holds a lane's requests back beyond the provider's answers: operators' restraints, and rates. A rate is
// shared among instances by the lane's partitions that each has.
type valve struct {
	// get looks a restraint up: control.View's.
	get      func(control.Name) *pb.Restraint
	platform pb.Platform
	lane     control.Name
	flow     bucket
	// part of the lane's partitions that this instance has, a float64's bits.
	part atomic.Uint64
}

func newValve(p pb.Platform, c pb.Class, get func(control.Name) *pb.Restraint) *valve {
	return &valve{get: get, platform: p, lane: control.Lane(p, c)}
}

// own notes how many of the lane's partitions this instance has.
func (v *valve) own(partitions, all int) {
	v.part.Store(math.Float64bits(float64(partitions) / float64(max(partitions, all, 1))))
}

// share is this instance's part of a rate.
func (v *valve) share(rate float64) float64 { return rate * math.Float64frombits(v.part.Load()) }

// laneHeld says that an operator has paused the lane. What waits then waits in the window: it holds nobody else up.
func (v *valve) laneHeld() bool { return v.get(v.lane).GetPaused() }

// gates is what an operator has to say of one destination, and how fast it goes.
type gates struct {
	*valve
	names [2]control.Name // the app's and its own
	flows [2]bucket
	// quota is the provider's, requests a second for all instances. 0: none.
	quota     float64
	quotaFlow bucket
	// starved is when a rate that is the app's or its own held a request back last, paced when a campaign's did.
	starved, paced time.Time
}

func (v *valve) gates(d Destination, quota float64) *gates {
	return &gates{
		valve: v, quota: quota,
		names: [2]control.Name{control.App(d.App), control.Destination(v.platform, d.App, d.Name)},
	}
}

// held finds the restraint that pauses the destination itself or its app, or nil.
func (g *gates) held() (control.Name, *pb.Restraint) {
	for _, name := range g.names {
		if r := g.get(name); r.GetPaused() {
			return name, r
		}
	}
	return "", nil
}

// slowest is the lowest rate that the app or the destination has, for this instance, or 0 when there is none.
func (g *gates) slowest() float64 {
	slowest := g.quota
	for _, name := range g.names {
		if r := g.get(name).GetPerSecond(); r > 0 && (slowest == 0 || r < slowest) {
			slowest = r
		}
	}
	return g.share(slowest)
}

// tempo is the rates that hold for a batch of requests: the lane's, the app's, the destination's and the provider's.
type tempo struct {
	set   [4]bool
	rates [4]float64 // this instance's part, requests a second
}

func (g *gates) tempo() (t tempo) {
	for i, rate := range [...]float64{g.get(g.lane).GetPerSecond(), g.get(g.names[0]).GetPerSecond(), g.get(g.names[1]).GetPerSecond(), g.quota} {
		t.set[i], t.rates[i] = rate != 0, g.share(rate)
	}
	return t
}

// let says whether one more request may go, and counts it if so. The destination's lock is held.
func (g *gates) let(j *job, t *tempo, now time.Time) bool {
	rate := j.pace(g.valve)
	if rate >= 0 && !j.run.flow.take(rate, now) {
		g.paced = now
		return false
	}
	if t.set == [4]bool{} || g.take(t, now) {
		return true
	}
	if rate >= 0 {
		j.run.flow.giveBack()
	}
	return false
}

// take takes one request off each rate, or off none.
func (g *gates) take(t *tempo, now time.Time) bool {
	taken := [...]*bucket{&g.flow, &g.flows[0], &g.flows[1], &g.quotaFlow}
	for i, b := range taken {
		if !t.set[i] || b.take(t.rates[i], now) {
			continue
		}
		if i > 0 {
			g.starved = now
		}
		for k := range i {
			if t.set[k] {
				taken[k].giveBack()
			}
		}
		return false
	}
	return true
}

// pace is this instance's and platform's part of the rate of the job's campaign, or -1 when it has none.
func (j *job) pace(v *valve) float64 {
	if j.run == nil {
		return -1
	}
	pace := j.run.pace()
	if pace == 0 {
		return -1
	}
	return v.share(pace)
}
