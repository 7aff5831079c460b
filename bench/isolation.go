package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// Isolation measures what a sick platform, web push service or app does to the others. Each pair is run in turns without
// the sick one and with it; each run has apps of its own, for a destination remembers how it was answered.
//
// A run has two parts. In the first, small campaigns are launched at a steady pace, well below what the machine can do:
// it gives the p99 of the time from a delivery's record on its send topic to its arrival. In the second, campaigns are
// launched whole, one after the other: they give the throughput, from a lane's first arrival to its last, of the best of
// them, since what else the machine does can only slow them down.
type Isolation struct {
	// Pairs are those to measure, by name; all, if there is none. "noise" comes first in any case.
	Pairs  []string
	Rounds int
	// Ticks campaigns to Paced devices are launched in the first part, one every tenth of a second.
	Ticks, Paced int
	// Bursts campaigns to Burst devices are launched in the second.
	Bursts, Burst int
	// Lead is how long the sick one has been sick before anything is measured.
	Lead time.Duration
}

const (
	tickEvery = 100 * time.Millisecond
	// sickDeliveries is how many are launched for the sick one, at least: several times what may be in flight.
	sickDeliveries = 1000
	// supply is how many devices an app has for each that is wanted: those of the smallest service that is measured, three
	// in four of web push's two in ten, must be enough.
	supply = 8
)

// pair is one comparison.
type pair struct {
	name string
	// well are the services that are measured, sick those that the fault is about.
	well, sick []simulator.Service
	fault      simulator.Fault
	// apart puts the sick deliveries in an app of their own, which the fault is about.
	apart bool
}

var (
	origins   = []simulator.Service{simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows}
	platforms = []simulator.Service{simulator.APNs, simulator.FCM}
)

// sicknesses are what is done to the sick one.
var sicknesses = []struct {
	name  string
	fault simulator.Fault
}{
	{"blackhole", simulator.Fault{Kind: simulator.BlackHole}},
	{"latency", simulator.Fault{Kind: simulator.Latency, Delay: simulator.Duration(10 * time.Second)}},
	{"429", simulator.Fault{Kind: simulator.Status, Status: 429}},
	{"reset", simulator.Fault{Kind: simulator.Reset}},
}

// pairs are all comparisons; the first is of a thing with itself.
func (b Isolation) pairs() []pair {
	all := []pair{{name: "noise", well: platforms}}
	for _, s := range sicknesses {
		web, one, app := s.fault, s.fault, s.fault
		web.Platform = "webpush"
		all = append(all, pair{name: "webpush-" + s.name, well: platforms, sick: origins, fault: web})
		one.Origin = simulator.Mozilla.String()
		all = append(all, pair{
			name: "origin-" + s.name, sick: origins[1:2], fault: one,
			well: []simulator.Service{simulator.Chrome, simulator.Apple, simulator.Windows},
		})
		if s.name == "blackhole" {
			continue // takes connections, and one provider's host is the same for all apps
		}
		app.Platform = "fcm"
		all = append(all, pair{name: "app-" + s.name, well: platforms[1:], sick: platforms[1:], fault: app, apart: true})
	}
	if len(b.Pairs) > 0 {
		all = slices.DeleteFunc(all, func(p pair) bool { return p.name != "noise" && !slices.Contains(b.Pairs, p.name) })
	}
	return all
}

// apps are the two of a run: the one that is measured, and the one for a sick app.
func apps(pair, round int, with bool) (measured, sick string) {
	half := "a"
	if with {
		half = "b"
	}
	id := fmt.Sprintf("%d-%d%s", pair, round, half)
	return "well-" + id, "sick-" + id
}

// Population implements Scene.
func (b Isolation) Population() simulator.Population {
	p := simulator.Population{Seed: 1, Devices: supply * max(b.Burst, b.Paced)}
	for i, pair := range b.pairs() {
		for round := range b.Rounds {
			for _, with := range []bool{false, true} {
				well, sick := apps(i, round, with)
				p.Apps = append(p.Apps, well)
				if pair.apart {
					p.Apps = append(p.Apps, sick)
				}
			}
		}
	}
	return p
}

// Run implements Scene.
func (b Isolation) Run(ctx context.Context, s *Stage) (Report, error) {
	tail, err := newTail(s.cluster.Kafka)
	if err != nil {
		return nil, err
	}
	defer tail.close()
	runs := b.runs(s, tail)
	s.say("registering the devices of %d runs, and making their connections", len(runs))
	if err := prepare(ctx, runs); err != nil {
		return nil, err
	}
	report := &IsolationReport{Name: "isolation", Pairs: []IsolationPair{}}
	for i, p := range b.pairs() {
		var throughput, delay series
		before := machineCPU()
		for ; len(runs) > 0 && runs[0].number == i; runs = runs[2:] {
			var halves [2]isolationResult
			for with := range halves {
				if halves[with], err = runs[with].run(ctx); err != nil {
					return nil, fmt.Errorf("%s: %w", p.name, err)
				}
			}
			throughput.add(halves[0].throughput, halves[1].throughput)
			delay.add(halves[0].p99, halves[1].p99)
		}
		found := newIsolationPair(p.name, &throughput, &delay)
		found.Stolen = machineCPU().stolenSince(before)
		s.say("%s", found)
		if i == 0 {
			report.Noise = found
		} else {
			report.Pairs = append(report.Pairs, found)
			report.compare(p.name, &throughput, &delay)
		}
	}
	return report, nil
}

// runs are all, in the order in which they are made: without and with in turns.
func (b Isolation) runs(s *Stage, tail *tail) []*isolationRun {
	var runs []*isolationRun
	for i, p := range b.pairs() {
		for round := range b.Rounds {
			for _, with := range []bool{false, true} {
				r := &isolationRun{Stage: s, Isolation: b, pair: p, number: i, tail: tail, with: with}
				r.measured, r.struck = apps(i, round, with)
				if !p.apart {
					r.struck = r.measured
				}
				runs = append(runs, r)
			}
		}
	}
	return runs
}

// prepare registers the devices of all runs, and warms them up.
func prepare(ctx context.Context, runs []*isolationRun) error {
	for _, r := range runs {
		if err := r.enrol(ctx); err != nil {
			return err
		}
	}
	if err := each(len(runs), func(i int) error { return runs[i].launch(ctx, runs[i].measured, "warm", runs[i].few()) }); err != nil {
		return err
	}
	for _, r := range runs {
		if _, err := r.Receipts.wait(ctx, deliveries(r.measured, "warm", r.few().Devices)); err != nil {
			return err
		}
	}
	return nil
}

// isolationRun is one half of a round.
type isolationRun struct {
	*Stage
	Isolation
	pair   pair
	number int // the pair's
	tail   *tail
	with   bool
	// measured and struck are its apps; the same one, unless the pair keeps them apart.
	measured, struck string
	well, sick       []device
}

// few are the devices of the paced campaigns.
func (r *isolationRun) few() producer.Audience {
	return producer.Audience{Devices: idsOf(r.well[:min(len(r.well), r.Paced)])}
}

type isolationResult struct{ throughput, p99 float64 }

func (r *isolationRun) run(ctx context.Context) (out isolationResult, err error) {
	r.Receipts.forget()
	r.tail.forget()
	if r.with && len(r.sick) > 0 {
		end, err := r.sicken(ctx)
		if err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	if out.p99, err = r.pace(ctx); err != nil {
		return out, err
	}
	for i := range r.Bursts {
		rate, err := r.whole(ctx, fmt.Sprintf("whole-%d", i))
		if err != nil {
			return out, err
		}
		out.throughput = max(out.throughput, rate)
	}
	return out, nil
}

// enrol registers the devices that the run needs. Both halves of a round register the same.
func (r *isolationRun) enrol(ctx context.Context) error {
	all, err := r.devices(r.measured)
	if err != nil {
		return err
	}
	r.well = take(all, r.pair.well, r.Burst)
	if !r.pair.apart {
		r.sick = take(all, r.pair.sick, sickDeliveries)
		return r.register(ctx, r.measured, slices.Concat(r.well, r.sick))
	}
	if all, err = r.devices(r.struck); err != nil {
		return err
	}
	r.sick = take(all, r.pair.sick, sickDeliveries)
	return errors.Join(r.register(ctx, r.measured, r.well), r.register(ctx, r.struck, r.sick))
}

// take is at most n of the devices on some services, as even over them as they come.
func take(all []device, services []simulator.Service, n int) []device {
	var out []device
	for _, d := range all {
		if len(out) < n && slices.ContainsFunc(services, func(s simulator.Service) bool { return s.String() == d.service }) {
			out = append(out, d)
		}
	}
	return out
}

// sicken puts the fault in force with work for it, and waits until it has struck and the lead is over. end lifts it.
func (r *isolationRun) sicken(ctx context.Context) (end func() error, err error) {
	fault := r.pair.fault
	if r.pair.apart {
		fault.App = r.struck
	}
	if err := r.sim.SetFault("bench", fault); err != nil {
		return nil, err
	}
	campaigns := (sickDeliveries + len(r.sick) - 1) / len(r.sick)
	id := func(i int) string { return fmt.Sprintf("sick-%d", i) }
	end = func() error {
		r.sim.ClearFaults()
		return each(campaigns, func(i int) error { return r.cancel(ctx, r.struck, id(i)) })
	}
	err = each(campaigns, func(i int) error {
		return r.launch(ctx, r.struck, id(i), producer.Audience{Devices: idsOf(r.sick)})
	})
	if err == nil {
		select {
		case <-r.sim.FaultStruck("bench"):
		case <-time.After(lostAfter):
			err = fmt.Errorf("the fault struck nothing within %v", lostAfter)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil && r.Lead > 0 && !pause(ctx, r.Lead) {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return end, nil
}

// each calls f with 0 to n-1, at the same time.
func each(n int, f func(int) error) error {
	var all errgroup.Group
	for i := range n {
		all.Go(func() error { return f(i) })
	}
	return all.Wait()
}

// pace launches small campaigns, one a tick whether or not the last one is done, and is the p99 from record to arrival, ms.
func (r *isolationRun) pace(ctx context.Context) (float64, error) {
	to := r.few()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var launched errgroup.Group
	var ids []simulator.ID
	for i := range r.Ticks {
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), launched.Wait())
		case <-tick.C:
		}
		id := fmt.Sprintf("paced-%d", i)
		ids = append(ids, deliveries(r.measured, id, to.Devices)...)
		launched.Go(func() error { return r.launch(ctx, r.measured, id, to) })
	}
	if err := launched.Wait(); err != nil {
		return 0, err
	}
	arrived, err := r.Receipts.wait(ctx, ids)
	if err != nil {
		return 0, err
	}
	written, err := r.tail.wait(ctx, ids)
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, len(ids))
	for i := range ids {
		took[i] = arrived[i].Sub(written[i])
	}
	return p99(took), nil
}

// whole launches one campaign to all at once, and is the deliveries a second from first to last arrival: of each service's
// lane by itself, added up, for lanes do not begin together.
func (r *isolationRun) whole(ctx context.Context, id string) (float64, error) {
	devices := idsOf(r.well)
	if err := r.launch(ctx, r.measured, id, producer.Audience{Devices: devices}); err != nil {
		return 0, err
	}
	arrived, err := r.Receipts.wait(ctx, deliveries(r.measured, id, devices))
	if err != nil {
		return 0, err
	}
	byLane := map[string][]time.Time{}
	for i, at := range arrived {
		lane := r.well[i].service
		if !slices.Contains([]string{"apns", "fcm"}, lane) {
			lane = "webpush"
		}
		byLane[lane] = append(byLane[lane], at)
	}
	var sum float64
	for _, times := range byLane {
		sum += rate(times)
	}
	return sum, nil
}

// rate is arrivals a second, from the first to the last.
func rate(times []time.Time) float64 {
	first, last := slices.MinFunc(times, time.Time.Compare), slices.MaxFunc(times, time.Time.Compare)
	return float64(len(times)-1) / last.Sub(first).Seconds()
}
