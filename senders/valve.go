package senders

import (
	"time"

	"github.com/belfry/belfry/control"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// valve is what holds a lane's requests back beyond the provider's answers: operators' restraints, and rates. A rate is
// shared among instances by the partitions that each has.
type valve struct {
	// get looks a restraint up: control.View's.
	get      func(control.Name) *pb.Restraint
	platform pb.Platform
	class    pb.Class
	lane     control.Name
	flow     bucket
	rates    *Rates
	// doubtful says that commits do not succeed: the lane's consumer's Held. It is nil where there is no consumer.
	doubtful func() bool
}

func newValve(p pb.Platform, c pb.Class, get func(control.Name) *pb.Restraint, rates *Rates) *valve {
	return &valve{get: get, platform: p, class: c, lane: control.Lane(p, c), rates: rates}
}

// own notes how many of the lane's partitions this instance has.
func (v *valve) own(partitions, all int) {
	v.rates.own(v.class, float64(partitions)/float64(max(partitions, all, 1)))
}

// share is this instance's part of a rate that is this lane's alone.
func (v *valve) share(rate float64) float64 { return rate * v.rates.part(v.class) }

// laneHeld says that an operator has paused the lane, or that what it sent now might be sent again. What waits then waits in the
// window: it holds nobody else up.
func (v *valve) laneHeld() bool {
	return v.get(v.lane).GetPaused() || v.doubtful != nil && v.doubtful()
}

// gates is what an operator has to say of one destination, and how fast it goes.
type gates struct {
	*valve
	names [2]control.Name // the app's and its own
	// flows are the lane's, the app's and the destination's. Other destinations draw from the first two, and the other class's
	// lane from the last two: so a batch of requests draws at once, not each.
	flows [3]*bucket
	// quota is the provider's, requests a second for all instances. 0: none.
	quota float64
	// known is what both lanes know of the destination: among others, the rate that they have learnt.
	known *known
	// starved is when a rate that is the app's or its own held a request back last, paced when a campaign's did.
	starved, paced time.Time
}

func (v *valve) gates(d Destination, quota float64) *gates {
	names := [2]control.Name{control.App(d.App), control.Destination(v.platform, d.App, d.Name)}
	return &gates{
		valve: v, quota: quota, names: names, known: v.rates.of(names[1]),
		flows: [3]*bucket{&v.flow, v.rates.bucket(names[0]), v.rates.bucket(names[1])},
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

// limits are this instance's parts of the rates of flows, requests a second. -1: none.
func (g *gates) limits() [3]float64 {
	own := g.get(g.names[1]).GetPerSecond()
	if own == 0 || g.quota > 0 && g.quota < own {
		own = g.quota
	}
	limits := [3]float64{g.get(g.lane).GetPerSecond(), g.get(g.names[0]).GetPerSecond(), own}
	for i, rate := range limits {
		switch {
		case rate == 0:
			limits[i] = -1
		case i == 0:
			limits[i] = g.share(rate)
		default:
			limits[i] = g.rates.share(rate)
		}
	}
	if learnt := g.known.rate(); learnt > 0 && (limits[2] < 0 || learnt < limits[2]) {
		limits[2] = learnt
	}
	return limits
}

// slowest is the lower of the rates that the app and the destination have, for this instance, or -1 when there is none.
func (g *gates) slowest() float64 {
	limits := g.limits()
	if limits[2] < 0 || limits[1] >= 0 && limits[1] < limits[2] {
		return limits[1]
	}
	return limits[2]
}

// purse is what a batch of requests drew from the flows.
type purse struct {
	left   int
	limits [3]float64
	// by is the flow that let less go than was wanted last.
	by int
}

// draw takes up to n requests off each rate: as many as the one that has the least lets go. The destination's lock is held,
// here and in the two that follow.
func (g *gates) draw(n int, now time.Time) purse {
	p := purse{left: n, limits: g.limits()}
	for i, b := range g.flows {
		if p.limits[i] < 0 {
			continue
		}
		ahead := i > 0 && g.class == pb.Class_CLASS_URGENT
		if got := b.draw(p.left, p.limits[i], ahead, now); got < p.left {
			g.giveBack(&p, i, p.left-got)
			p.left, p.by = got, i
		}
	}
	return p
}

// giveBack returns n requests to the first flows of a purse.
func (g *gates) giveBack(p *purse, flows, n int) {
	for i, b := range g.flows[:flows] {
		if p.limits[i] >= 0 && n > 0 {
			b.giveBack(n)
		}
	}
}

// let says whether one more request may go, and takes it out of the purse if so.
func (g *gates) let(j *job, p *purse, now time.Time) bool {
	rate := j.pace(g.valve)
	if rate >= 0 && j.run.flow.draw(1, rate, false, now) == 0 {
		g.paced = now
		return false
	}
	if p.left > 0 {
		p.left--
		return true
	}
	if p.by > 0 {
		g.starved = now
	}
	if rate >= 0 {
		j.run.flow.giveBack(1)
	}
	return false
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
