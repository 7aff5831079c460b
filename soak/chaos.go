package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/soak/proxy"
)

// event is one thing that was done to the deployment.
type event struct {
	kind   string
	target string
	// platform that it touches: "" is all. senders tells that a lane's process may lose what it had in flight by it;
	// provider that the provider, or the way to it, was sick.
	platform          string
	senders, provider bool
	start, end        time.Time // end is zero while it lasts
	moment            time.Time // when a process died, where that is known
	// fired tells that the fault is known to have struck: a process died of it, data was held up, requests were refused.
	fired bool
	note  string
}

func (e *event) touches(platform string) bool { return e.platform == "" || e.platform == platform }

// chaos strikes the deployment by a schedule that follows from its seed alone.
type chaos struct {
	w      *world
	load   *load
	rng    *rand.Rand
	say    func(string, ...any)
	points []struct{ role, point string }
	next   int // of points

	found []*contrast // by the one goroutine that strikes

	mu     sync.Mutex // guards events and faults
	events []*event
	faults []string // what went wrong that must not
}

func newChaos(w *world, l *load, say func(string, ...any)) *chaos {
	c := &chaos{w: w, load: l, rng: rand.New(rand.NewPCG(w.seed, 4)), say: say}
	commit := []string{failpoint.Polled, failpoint.BeforeCommit, failpoint.Produced, failpoint.Offsets, failpoint.AfterCommit, failpoint.Revoke}
	send := []string{failpoint.BeforeWrite, failpoint.AfterWrite, failpoint.Answered, failpoint.Retry}
	for _, l := range layout {
		switch {
		case strings.HasPrefix(l.role, "senders."):
			c.add(l.role, append(commit, send...)...)
		case l.role == "trigger" || l.role == "fanout" || l.role == "ledger":
			c.add(l.role, commit...)
		case l.role == "registry":
			c.add(l.role, failpoint.Polled, failpoint.BeforeCommit, failpoint.AfterCommit)
		}
	}
	c.rng.Shuffle(len(c.points), func(i, j int) { c.points[i], c.points[j] = c.points[j], c.points[i] })
	return c
}

func (c *chaos) add(role string, points ...string) {
	for _, p := range points {
		c.points = append(c.points, struct{ role, point string }{role, p})
	}
}

// replayStrike is how many strikes have one of a replay among them, so that also a minute of soak has one, and contrastStrike how many
// have one of sick devices, so that ten minutes have enough to judge by.
const (
	replayStrike   = 6
	contrastStrike = 9
)

// run strikes until ctx ends, then heals everything.
func (c *chaos) run(ctx context.Context) {
	type kind struct {
		name   string
		weight int
		strike func(context.Context)
	}
	kinds := []kind{
		{"SIGKILL", 14, c.kill},
		{"SIGTERM", 6, c.restart},
		{"SIGSTOP", 8, c.freeze},
		{"failpoint", 20, c.failpoint},
		{"rebalance", 7, c.storm},
		{"broker SIGKILL", 4, c.killBroker},
		{"broker SIGSTOP", 3, c.freezeBroker},
		{"network to Kafka", 10, c.kafkaNetwork},
		{"Redis lost", 3, c.loseRedis},
		{"network to Redis", 4, c.redisNetwork},
		{"network to a provider", 8, c.providerNetwork},
		{"provider", 18, c.provider},
		{"topic refused", 10, c.refused},
		{"topic deleted", 2, c.deleted},
		{"wrong file", 5, c.wrongFile},
	}
	if c.w.kafka.broker != nil {
		kinds = append(kinds, kind{"forged errors", 6, c.forge})
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for strike := 0; ctx.Err() == nil; strike++ {
		n := c.rng.IntN(total)
		switch {
		case strike%replayStrike == replayStrike/2:
			c.replay(ctx, strike/replayStrike)
		case strike%contrastStrike == contrastStrike/2:
			c.contrasts(ctx)
		default:
			for _, k := range kinds {
				if n -= k.weight; n < 0 {
					k.strike(ctx)
					break
				}
			}
		}
		c.revive()
		c.pause(ctx, time.Duration(500+c.rng.IntN(3000))*time.Millisecond)
	}
	c.heal()
}

func (c *chaos) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// between draws a duration, in steps of a millisecond.
func (c *chaos) between(least, most time.Duration) time.Duration {
	return least + time.Duration(c.rng.Int64N(int64((most-least)/time.Millisecond)+1))*time.Millisecond
}

func (c *chaos) begin(e event) *event {
	e.start = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, &e)
	c.say("%-16s %s %s", e.kind, e.target, e.note)
	return &e
}

func (c *chaos) end(e *event, fired bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.end, e.fired = time.Now(), fired
}

// died notes that the event's process is gone.
func (c *chaos) died(e *event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.moment = time.Now()
}

// wrong notes what must not happen.
func (c *chaos) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
	c.say("WRONG: "+format, args...)
}

func (c *chaos) check(err error) {
	if err != nil {
		c.wrong("%v", err)
	}
}

// pick draws an instance.
func (c *chaos) pick() *instance {
	all := c.w.of("")
	return all[c.rng.IntN(len(all))]
}

// on begins an event that strikes an instance. Processes other than senders hold nothing of a provider's.
func (c *chaos) on(kind string, i *instance, note string) *event {
	e := event{kind: kind, target: i.name, platform: i.platform, senders: i.platform != "", note: note}
	if i.platform == "" {
		e.platform = "-" // no lane
	}
	return c.begin(e)
}

func (c *chaos) kill(ctx context.Context) {
	i, away := c.pick(), c.between(0, 3*time.Second)
	e := c.on("SIGKILL", i, "")
	i.kill()
	fired := i.killedBy() == syscall.SIGKILL
	c.died(e)
	c.pause(ctx, away)
	c.check(i.start())
	c.end(e, fired)
}

func (c *chaos) restart(ctx context.Context) {
	i, away := c.pick(), c.between(0, 2*time.Second)
	e := c.on("SIGTERM", i, "")
	was := i.running()
	c.check(i.stop())
	c.pause(ctx, away)
	c.check(i.start())
	c.end(e, was)
}

// freeze stops a process for so long that some of its groups may go on without it.
func (c *chaos) freeze(ctx context.Context) {
	i, frozen := c.pick(), c.between(time.Second, 15*time.Second)
	e := c.on("SIGSTOP", i, frozen.Round(time.Second).String())
	i.signal(syscall.SIGSTOP)
	fired := i.running()
	c.pause(ctx, frozen)
	i.signal(syscall.SIGCONT)
	c.end(e, fired)
}

// failpoint has a process kill itself at the next of the named points.
func (c *chaos) failpoint(ctx context.Context) {
	at := c.points[c.next%len(c.points)]
	c.next++
	most := 5
	if slices.Contains([]string{failpoint.BeforeWrite, failpoint.AfterWrite, failpoint.Answered}, at.point) {
		most = 200
	}
	hit := 1 + c.rng.IntN(most)
	of := c.w.of(at.role)
	i := of[c.rng.IntN(len(of))]
	if at.point == failpoint.Retry || at.point == failpoint.Revoke {
		hit = 1
	}
	if at.point == failpoint.Retry {
		c.refuse(ctx, i.platform)
	}
	c.arm(ctx, i, at.point, hit, 12*time.Second)
}

// arm restarts a process so that it kills itself at the hit-th time that it passes a point, waits for that within a limit, and starts
// it again.
func (c *chaos) arm(ctx context.Context, i *instance, point string, hit int, limit time.Duration) {
	e := c.on("failpoint", i, fmt.Sprintf("%s:%d", point, hit))
	c.check(i.stop())
	c.check(i.start(fmt.Sprintf("BELFRY_FAILPOINT=%s:%d", point, hit)))
	if point == failpoint.Revoke {
		c.pause(ctx, 4*time.Second)
		i.signal(syscall.SIGTERM)
	}
	fired := i.wait(limit) && i.killedBy() == syscall.SIGKILL
	c.died(e)
	if err := i.stop(); err != nil && i.killedBy() == syscall.SIGKILL && !errors.Is(err, errSlow) {
		fired = true // it came to the point as it stopped
	} else {
		c.check(err)
	}
	c.check(i.start())
	c.end(e, fired)
}

// replay has deliveries die for want of an answer, and then kills the process that sends them again, at the n-th of its
// points. Of the load's replays the next one comes soon, and each passes its checkpoint twice at least on each platform.
func (c *chaos) replay(ctx context.Context, n int) {
	points := []string{
		failpoint.ReplayCheckpoint, failpoint.Produced, failpoint.ReplayCheckpoint, failpoint.Offsets, failpoint.ReplayCheckpoint, failpoint.AfterCommit,
	}
	platform := schemas.PlatformName(schemas.Platforms[c.rng.IntN(len(schemas.Platforms))])
	point, hit := points[n%len(points)], 1+c.rng.IntN(6)
	c.during(ctx, "unanswered", platform, simulator.Fault{Kind: simulator.Reset, Platform: platform, Rate: 0.5, AfterAccepting: c.rng.IntN(2) == 0})
	c.arm(ctx, c.w.of("replay")[0], point, hit, 30*time.Second) // a busy machine may take so long to the next replay
}

// refuse has a provider refuse some requests for a moment, so that something comes back from a retry topic.
func (c *chaos) refuse(ctx context.Context, platform string) {
	c.during(ctx, "503 for the retry hop", platform, simulator.Fault{Kind: simulator.Status, Status: 503, Platform: platform, Rate: 0.2})
}

// during has a fault of a platform's provider in force for a moment.
func (c *chaos) during(ctx context.Context, note, platform string, f simulator.Fault) {
	e := c.begin(event{kind: "provider", target: platform, platform: platform, provider: true, note: note})
	_, err := c.w.fault("moment", &f)
	c.check(err)
	c.pause(ctx, 2*time.Second)
	struck, err := c.w.fault("moment", nil)
	c.check(err)
	c.end(e, struck > 0)
}

// storm adds an instance and takes it away again, so that a role's partitions move twice.
func (c *chaos) storm(ctx context.Context) {
	like, stays, kill := c.pick(), c.between(2*time.Second, 8*time.Second), c.rng.IntN(2) == 0
	if like.role == "producer" {
		return // it owns no partition, and would need an address of its own
	}
	extra := c.w.instance(like.role, "x")
	c.w.join(extra)
	e := c.on("rebalance", extra, "")
	c.check(extra.start())
	c.pause(ctx, stays)
	joined := c.w.joined(extra)
	if kill {
		e.note = "and SIGKILL"
		extra.kill()
		// Until its session is over nobody may have its partitions, even if the time to strike is over meanwhile.
		c.pause(context.WithoutCancel(ctx), rebalanceTime)
	} else {
		c.check(extra.stop())
	}
	c.w.leave(extra)
	c.end(e, joined)
}

// kafkaEvent touches every lane's commits.
func (c *chaos) kafkaEvent(kind, target, note string) *event {
	return c.begin(event{kind: kind, target: target, senders: true, note: note})
}

func (c *chaos) killBroker(ctx context.Context) {
	n, away := 1+c.rng.IntN(c.w.kafka.nodes), c.between(0, 4*time.Second)
	e := c.kafkaEvent("broker SIGKILL", fmt.Sprint("broker ", n), "")
	err := c.w.kafka.kill(n)
	c.check(err)
	c.pause(ctx, away)
	c.check(c.w.kafka.start(n))
	c.end(e, err == nil)
}

func (c *chaos) freezeBroker(ctx context.Context) {
	n, frozen := 1+c.rng.IntN(c.w.kafka.nodes), c.between(time.Second, 10*time.Second)
	e := c.kafkaEvent("broker SIGSTOP", fmt.Sprint("broker ", n), frozen.Round(time.Second).String())
	err := c.w.kafka.pause(n, true)
	c.check(err)
	c.pause(ctx, frozen)
	c.check(c.w.kafka.pause(n, false))
	c.end(e, err == nil)
}

// forge has the embedded broker give errors for a moment.
func (c *chaos) forge(ctx context.Context) {
	e := c.kafkaEvent("forged errors", "broker 1", "")
	before := c.w.kafka.forged()
	c.w.kafka.broker.signal(syscall.SIGUSR1)
	c.pause(ctx, c.between(time.Second, 5*time.Second))
	c.end(e, c.w.kafka.forged() > before)
}

// network makes the way through a proxy bad for a while.
func (c *chaos) network(ctx context.Context, e event, p *proxy.Proxy) {
	last := c.between(time.Second, 8*time.Second)
	faults := []struct {
		name string
		f    proxy.Fault
	}{
		{"reset", proxy.Fault{}},
		{"latency", proxy.Fault{Latency: c.between(20*time.Millisecond, 400*time.Millisecond)}},
		{"narrow", proxy.Fault{PerSecond: 20_000 + c.rng.IntN(200_000)}},
		{"half-open", proxy.Fault{HalfOpen: true}},
		{"slow close", proxy.Fault{SlowClose: c.between(time.Second, 5*time.Second)}},
	}
	f := faults[c.rng.IntN(len(faults))]
	e.note = f.name
	began := c.begin(e)
	before := p.Struck()
	p.Set(f.f)
	if f.name == "reset" || f.name == "slow close" {
		p.Reset()
		last /= 4
	}
	c.pause(ctx, last)
	p.Set(proxy.Fault{})
	c.end(began, p.Struck() > before)
}

func (c *chaos) kafkaNetwork(ctx context.Context) {
	n := c.rng.IntN(len(c.w.kafka.proxies))
	c.network(ctx, event{kind: "network", target: fmt.Sprint("to broker ", n+1), senders: true}, c.w.kafka.proxies[n])
}

func (c *chaos) redisNetwork(ctx context.Context) {
	c.network(ctx, event{kind: "network", target: "to Redis", platform: "-"}, c.w.redis)
}

func (c *chaos) providerNetwork(ctx context.Context) {
	name := services[c.rng.IntN(len(services))]
	c.network(ctx, event{kind: "network", target: "to " + name, platform: platformOf(name), provider: true}, c.w.providers[name])
}

func platformOf(service string) string {
	switch service {
	case "apns", "apns-sandbox":
		return "apns"
	case "fcm", "oauth":
		return "fcm"
	}
	return "webpush"
}

// loseRedis kills Redis, starts an empty one, and has it filled from Kafka.
func (c *chaos) loseRedis(ctx context.Context) {
	away := c.between(0, 3*time.Second)
	e := c.begin(event{kind: "Redis lost", target: "Redis", platform: "-"})
	err := c.w.loseRedis()
	c.check(err)
	c.pause(ctx, away)
	c.check(c.w.restartRedis())
	c.check(c.w.rebuild())
	c.end(e, err == nil)
}

// provider makes one provider sick for a while, in a way that providers are known for.
func (c *chaos) provider(ctx context.Context) {
	name := services[c.rng.IntN(len(services))]
	last := c.between(time.Second, 6*time.Second)
	faults := []simulator.Fault{
		{Kind: simulator.Latency, Delay: simulator.Duration(c.between(200*time.Millisecond, 3*time.Second))},
		{Kind: simulator.Stall},
		{Kind: simulator.Status, Status: 503, Rate: 0.3},
		{Kind: simulator.Status, Status: 429, Rate: 0.3, RetryAfter: 1 + c.rng.IntN(3)},
		{Kind: simulator.Status, Status: 500},
		{Kind: simulator.Reset, Rate: 0.2},
		{Kind: simulator.Reset, Rate: 0.1, AfterAccepting: true},
		{Kind: simulator.Reset, Rate: 0.2, Code: "REFUSED_STREAM"},
		{Kind: simulator.Reset, Rate: 0.1, Code: "CANCEL", AfterAccepting: true},
		{Kind: simulator.GoAway, Rate: 0.05},
		{Kind: simulator.Cut, Rate: 0.02, AfterAccepting: true},
		{Kind: simulator.Credentials},
		{Kind: simulator.BlackHole},
		{Kind: simulator.Drip, PerSecond: 200},
		{Kind: simulator.Quota, PerSecond: 50, Burst: 20, RetryAfter: 1},
	}
	f := faults[c.rng.IntN(len(faults))]
	f.Origin = name
	note := strings.TrimSpace(string(f.Kind) + " " + f.Code)
	if f.AfterAccepting {
		note += " after accepting"
	}
	if f.Status != 0 {
		note += fmt.Sprint(" ", f.Status)
	}
	e := c.begin(event{kind: "provider", target: name, platform: platformOf(name), provider: true, note: note})
	_, err := c.w.fault("sick", &f)
	c.check(err)
	c.pause(ctx, last)
	struck, err := c.w.fault("sick", nil)
	c.check(err)
	c.end(e, struck > 0)
}

// revive starts again what ended by itself, which nothing may.
func (c *chaos) revive() {
	for _, i := range c.w.of("") {
		if !i.running() {
			c.wrong("%s ended by itself: %v", i.name, i.cmd.ProcessState)
			c.check(i.start())
		}
	}
}

// heal makes everything well.
func (c *chaos) heal() {
	c.w.redis.Set(proxy.Fault{})
	for _, p := range c.w.kafka.proxies {
		p.Set(proxy.Fault{})
	}
	for _, p := range c.w.providers {
		p.Set(proxy.Fault{})
	}
	c.revive()
}

// all copies the events so far.
func (c *chaos) all() []event {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]event, len(c.events))
	for n, e := range c.events {
		all[n] = *e
	}
	return all
}

func stopOrCont(stop bool) syscall.Signal {
	if stop {
		return syscall.SIGSTOP
	}
	return syscall.SIGCONT
}
