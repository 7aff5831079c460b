package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
)

// sample is a delivery that was asked for then.
type sample struct {
	id    [16]byte
	asked time.Time
}

// took is how long it was until a delivery's first receipt; one that has none took longer than anything.
func (e *evidence) took(s sample) time.Duration {
	got := e.receipts[s.id]
	if len(got) == 0 {
		return time.Hour
	}
	return slices.MinFunc(got, time.Time.Compare).Sub(s.asked)
}

// flow is what was asked for once everything was well again: I14.
type flow struct {
	healed  time.Time
	samples []sample
}

// flowLimit is I14's, and flowDevices how many devices of each service are asked for, by messages and by a campaign.
const (
	flowLimit   = 10 * time.Second
	flowDevices = 10
)

// flows asks for a little of everything, as soon as all is well.
func (l *load) flows(ctx context.Context) *flow {
	f := &flow{healed: time.Now()}
	var devices []string
	for _, of := range l.byService() {
		devices = append(devices, of[:min(len(of), flowDevices)]...)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n, d := range devices {
		wg.Go(func() {
			if id, taken := l.send(ctx, fmt.Sprintf("flow-%04d", n), d); taken {
				mu.Lock()
				defer mu.Unlock()
				f.samples = append(f.samples, sample{id, f.healed})
			}
		})
	}
	status, answer := l.repeat(ctx, http.MethodPost, "/v1/campaigns", "flow", map[string]any{
		"id": "flow", "launch": true, "audience": map[string]any{"devices": devices},
		"message": map[string]string{"title": "Flow", "body": "On", "ttl": l.ttl.String()},
	})
	wg.Wait()
	if status >= 300 {
		l.unexpected("campaign", status, answer)
	}
	for _, d := range devices {
		f.samples = append(f.samples, sample{schemas.DeliveryID("demo", "flow", d, 0), f.healed})
	}
	return f
}

// slowest is the one that took longest, and how long that was without what the machine withheld.
func (f *flow) slowest(e *evidence, s *starved) (longest time.Duration, what string) {
	for _, one := range f.samples {
		took := e.took(one)
		if took -= s.during(one.asked, one.asked.Add(took)); took > longest {
			longest, what = took, e.story(one.id)
		}
	}
	return longest, what
}

// byService are the devices by the provider's service that has them.
func (l *load) byService() map[string][]string {
	all := map[string][]string{}
	for _, d := range l.registrations() {
		service := fmt.Sprint(d["platform"])
		if web, is := d["webpush"].(map[string]any); is {
			endpoint := fmt.Sprint(web["endpoint"])
			for _, name := range services[4:] {
				if strings.HasPrefix(endpoint, "https://"+l.w.providers[name].Addr()+"/") {
					service = name
				}
			}
		}
		all[service] = append(all[service], fmt.Sprint(d["id"]))
	}
	return all
}

// contrast is what devices that are well took while others of the same service were sick, and before that: I15.
type contrast struct {
	note string
	// quiet are from two stretches before, sick from the one in which they were.
	quiet [2][]sample
	sick  []sample
}

const (
	// contrastFor is how long each stretch is, with a message each contrastEvery.
	contrastFor   = 2 * time.Second
	contrastEvery = 40 * time.Millisecond
	// settleFor is how long the deployment gets to recover from what was before.
	settleFor = 6 * time.Second
)

// contrasts makes a random share of a service's devices sick, in a way of devices' own, and sends to the others.
func (c *chaos) contrasts(ctx context.Context) {
	service := []string{"apns", "fcm", "chrome"}[c.rng.IntN(3)]
	share := []float64{0.01, 0.2, 0.5, 0.8, 0.95, 0.99}[c.rng.IntN(6)]
	f := c.sickness()
	all := c.load.byService()[service]
	n := min(max(1, int(share*float64(len(all)))), len(all)-1)
	c.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	f.Targets = all[:n]
	well := all[n:]
	c.pause(ctx, settleFor)
	out := &contrast{note: fmt.Sprintf("%s of %.0f %% of %s", note(f), 100*share, service)}
	for i := range out.quiet {
		out.quiet[i] = c.samples(ctx, fmt.Sprintf("quiet-%d-%d", len(c.found), i), well)
	}
	e := c.begin(event{kind: "sick devices", target: service, platform: platformOf(service), provider: true, note: out.note})
	_, err := c.w.fault("devices", &f)
	c.check(err)
	stop := c.stir(ctx, f.Targets)
	out.sick = c.samples(ctx, fmt.Sprintf("sick-%d", len(c.found)), well)
	stop()
	struck, err := c.w.fault("devices", nil)
	c.check(err)
	c.end(e, struck > 0)
	if ctx.Err() == nil && struck > 0 {
		c.found = append(c.found, out)
	}
}

// sickness is one of the ways in which a device, and not its service, fails.
func (c *chaos) sickness() simulator.Fault {
	kinds := []simulator.Fault{
		{Kind: simulator.Status, Status: 429, RetryAfter: 5},
		{Kind: simulator.Status, Status: 503},
		{Kind: simulator.Mismatch},
		{Kind: simulator.Latency, Delay: simulator.Duration(3 * time.Second)},
		{Kind: simulator.Reset},
	}
	return kinds[c.rng.IntN(len(kinds))]
}

func note(f simulator.Fault) string {
	if f.Status != 0 {
		return fmt.Sprint(f.Kind, " ", f.Status)
	}
	return string(f.Kind)
}

// stir sends messages to the sick until stop is called.
func (c *chaos) stir(ctx context.Context, sick []string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.samples(ctx, fmt.Sprintf("stir-%d", len(c.found)), sick) })
	return func() { cancel(); wg.Wait() }
}

// samples sends messages to some devices for a while, at a steady pace whatever becomes of them.
func (c *chaos) samples(ctx context.Context, name string, devices []string) (all []sample) {
	tick := time.NewTicker(contrastEvery)
	defer tick.Stop()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range int(contrastFor / contrastEvery) {
		select {
		case <-ctx.Done():
		case <-tick.C:
			device := devices[rand.IntN(len(devices))]
			wg.Go(func() {
				asked := time.Now()
				// What is begun is asked for to its end: what was promised is counted.
				if id, taken := c.load.send(context.WithoutCancel(ctx), fmt.Sprint(name, "-", n), device); taken {
					mu.Lock()
					defer mu.Unlock()
					all = append(all, sample{id, asked})
				}
			})
		}
	}
	wg.Wait()
	return all
}

// contrastMost is I15's, and enoughContrasts how many there must be for a verdict: one is at the mercy of what else the machine does.
const (
	contrastMost    = 1.1
	enoughContrasts = 5
)

// judge is by how much longer the well ones took while others were sick, and by how much the one quiet stretch differs from the
// other: medians of the medians' ratios. It tells of each.
func judge(all []*contrast, e *evidence) (ratio, noise float64, each []string) {
	var ratios, noises []float64
	for _, c := range all {
		a, b, sick := e.median(c.quiet[0]), e.median(c.quiet[1]), e.median(c.sick)
		if a == 0 || b == 0 || sick == 0 {
			continue
		}
		ratios, noises = append(ratios, sick/b), append(noises, max(a/b, b/a))
		each = append(each, fmt.Sprintf("%s %.0f ms after %.0f and %.0f", c.note, 1000*sick, 1000*a, 1000*b))
	}
	return middle(ratios), middle(noises), each
}

// median is of what the samples took, in seconds.
func (e *evidence) median(samples []sample) float64 {
	took := make([]float64, len(samples))
	for i, s := range samples {
		took[i] = e.took(s).Seconds()
	}
	return middle(took)
}

func middle[T cmp.Ordered](all []T) (m T) {
	if len(all) == 0 {
		return m
	}
	slices.Sort(all)
	return all[len(all)/2]
}
