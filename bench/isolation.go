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

// Isolation measures what a sick platform, web push service, app, device, message or half of a service does to the others. Each pair is run in turns without
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
	// sickCampaigns is to how many campaigns at most they belong, and messageTo to how many devices a sick message goes.
	sickCampaigns, messageTo = 20, 50
	// supply is how many devices an app has for each that is wanted: those of the smallest service that is measured, three
	// in four of web push's two in ten, must be enough.
	supply = 8
)

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
	// launched are the campaigns for the sick, by id.
	launched []string
}

// few are the devices of the paced campaigns.
func (r *isolationRun) few() producer.Audience {
	return producer.Audience{Devices: idsOf(r.well[:min(len(r.well), r.Paced)])}
}

type isolationResult struct{ throughput, p99 float64 }

func (r *isolationRun) run(ctx context.Context) (out isolationResult, err error) {
	r.Receipts.forget()
	r.tail.forget()
	if len(r.sick) > 0 && (r.with || r.pair.inside()) {
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
		var all errgroup.Group
		if r.pair.inside() { // those of before are put off by now
			all.Go(func() error { return r.strike(ctx) })
		}
		var rate float64
		all.Go(func() (err error) {
			rate, err = r.burst(ctx, fmt.Sprintf("whole-%d", i))
			return err
		})
		if err := all.Wait(); err != nil {
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
	if r.pair.inside() {
		return r.enrolInside(ctx, take(all, r.pair.well, len(all)))
	}
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

// enrolInside makes some of a service's devices sick, and as many as there may be of the others well.
func (r *isolationRun) enrolInside(ctx context.Context, all []device) error {
	n := r.pair.targets
	if r.pair.half {
		n = min(r.Burst, len(all)/2)
	}
	r.sick, r.well = all[:n], all[n:min(len(all), n+r.Burst)]
	return r.register(ctx, r.measured, all[:n+len(r.well)])
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

// sicken puts the fault in force with work for it, and waits until it has struck and the lead is over. end lifts it. Those inside
// of what is measured have the same work without the fault: else it would be the machine's share for them that is measured.
func (r *isolationRun) sicken(ctx context.Context) (end func() error, err error) {
	if r.with && r.pair.about == nil {
		if err := r.infect(); err != nil {
			return nil, err
		}
	}
	end = func() error {
		r.sim.ClearFaults()
		return each(len(r.launched), func(i int) error { return r.cancel(ctx, r.struck, r.launched[i]) })
	}
	if err = r.strike(ctx); err == nil && r.with {
		err = r.awaitFault(ctx)
	}
	if err == nil && r.Lead > 0 && !pause(ctx, r.Lead) {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return end, nil
}

// awaitFault waits until the fault has struck.
func (r *isolationRun) awaitFault(ctx context.Context) error {
	late := time.After(lostAfter)
	if r.pair.about != nil {
		return r.awaitRefusal(ctx, late)
	}
	select {
	case <-r.sim.FaultStruck("bench"):
		return nil
	case <-late:
		return fmt.Errorf("the fault struck nothing within %v", lostAfter)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitRefusal waits until a delivery of a message that fails has.
func (r *isolationRun) awaitRefusal(ctx context.Context, late <-chan time.Time) error {
	for {
		p, err := r.progress(ctx, r.struck, r.launched[0])
		if err != nil || p.Counts.Rejected > 0 {
			return err
		}
		select {
		case <-late:
			return fmt.Errorf("the message was not refused within %v: %+v", lostAfter, p.Counts)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tickEvery):
		}
	}
}

// infect puts the fault in force: one of the provider's.
func (r *isolationRun) infect() error {
	fault := r.pair.fault
	if r.pair.apart || r.pair.inside() {
		fault.App = r.struck // devices have the same ids in each
	}
	if r.pair.inside() {
		fault.Targets = idsOf(r.sick)
	}
	return r.sim.SetFault("bench", fault)
}

// strike launches campaigns for the sick.
func (r *isolationRun) strike(ctx context.Context) error {
	campaigns := min(sickCampaigns, (sickDeliveries+len(r.sick)-1)/len(r.sick))
	from := len(r.launched)
	for i := range campaigns {
		r.launched = append(r.launched, fmt.Sprintf("sick-%d", from+i))
	}
	about := text
	if r.with && r.pair.about != nil {
		about = r.pair.about(text)
	}
	return each(campaigns, func(i int) error {
		return r.launchOf(ctx, r.struck, r.launched[from+i], about, producer.Audience{Devices: idsOf(r.sick)})
	})
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

// burst launches one campaign to all at once, and is the deliveries a second from first to last arrival: of each service's
// lane by itself, added up, for lanes do not begin together.
func (r *isolationRun) burst(ctx context.Context, id string) (float64, error) {
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
