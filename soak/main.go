// Command soak runs Belfry as processes by role, with a Kafka, a Redis and simulated providers, strikes all of them for a
// while by a schedule that follows from a seed, and then checks what they did against the invariants of the design. It is
// no part of the product: make soak runs it in the repository.
//
// The two types to know are world, one deployment, and chaos, which strikes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

type options struct {
	duration time.Duration
	seed     uint64
	kafka    string
	devices  int
	rounds   int // of a rolling restart, instead of faults
	report   string
	keep     bool
}

func main() {
	var o options
	var broker, advertise, dir string
	flag.DurationVar(&o.duration, "duration", 10*time.Minute, "how long to strike")
	flag.Uint64Var(&o.seed, "seed", 0, "what the schedule follows from (default: any)")
	flag.StringVar(&o.kafka, "kafka", "embedded", "embedded, 1 or 3 (brokers)")
	flag.IntVar(&o.devices, "devices", 5000, "devices of the app")
	flag.IntVar(&o.rounds, "rolling", 0, "instead of faults, restart every role so many times by SIGTERM")
	flag.StringVar(&o.report, "report", "", "append the report to this file too")
	flag.BoolVar(&o.keep, "keep", false, "keep the folder with all logs")
	flag.StringVar(&broker, "broker", "", "be the embedded broker, listening there (the harness starts itself so)")
	flag.StringVar(&advertise, "advertise", "", "with -broker: the address that clients are told")
	flag.StringVar(&dir, "dir", "", "with -broker: its folder")
	flag.Parse()
	if o.seed == 0 {
		o.seed = 1 + rand.Uint64N(1_000_000)
	}
	if o.rounds > 0 {
		o.duration = time.Hour // it ends by itself
	}
	var err error
	if broker != "" {
		err = runBroker(dir, broker, advertise)
	} else {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// again is the command that runs the same schedule.
func (o *options) again() string {
	if o.rounds > 0 {
		return fmt.Sprintf("go run ./soak -rolling %d -kafka %s -devices %d -seed %d", o.rounds, o.kafka, o.devices, o.seed)
	}
	return fmt.Sprintf("make soak DURATION=%v KAFKA=%s DEVICES=%d SEED=%d", o.duration, o.kafka, o.devices, o.seed)
}

var errViolated = errors.New("an invariant does not hold")

func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	say("seed %d: %s", o.seed, o.again())
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer func() {
		w.keep = w.keep || err != nil
		if w.keep {
			say("everything is in %s", w.dir)
		}
		w.close()
	}()
	say("the deployment is up")
	result, err := soak(ctx, w, say)
	if err != nil {
		return err
	}
	if err := result.print(os.Stdout); err != nil {
		return err
	}
	if o.report != "" {
		if err := appendTo(o.report, result); err != nil {
			return err
		}
	}
	for _, v := range result.verdicts() {
		if !v.holds {
			return fmt.Errorf("%w; again: %s", errViolated, o.again())
		}
	}
	return nil
}

func appendTo(name string, o *outcome) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintln(f)
	return errors.Join(o.print(f), f.Close())
}

// soak strikes for as long as it is told, heals, waits until all is done, and gathers what there is to judge by.
func soak(ctx context.Context, w *world, say func(string, ...any)) (*outcome, error) {
	// Two clocks of roles may be so far apart that it is that much shorter.
	ttl := min(max(w.duration/2, time.Minute), 4*time.Minute) + 2*mostSkew
	l := newLoad(w, ttl)
	c := newChaos(w, l, say)
	o := newWatch(w, c)
	brief, stop := context.WithTimeout(ctx, w.duration)
	defer stop()
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	answering, give := context.WithCancel(ctx)
	defer give()
	var wg, loading sync.WaitGroup
	began := time.Now()
	wg.Go(func() {
		if err := o.run(watching); err != nil {
			c.wrong("%v", err)
		}
	})
	loading.Go(func() { l.run(answering, brief) })
	if err := c.usual(); err != nil {
		return nil, err
	}
	if w.rounds > 0 {
		c.roll(ctx, w.rounds)
		stop()
	} else {
		c.run(brief)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	result := &outcome{options: w.options, skew: w.skew(), clocks: w.skewsDrawn(), took: time.Since(began), load: l, watch: o}
	say("all is well again; waiting until everything is done")
	time.AfterFunc(patience, give) // a call that is not answered by then never is
	result.flow, result.contrasts = l.flows(answering), c.found
	loading.Wait()
	var err error
	if result.evidence, err = settle(ctx, w, l, o, ttl+patience); err != nil {
		return nil, err
	}
	unwatch()
	wg.Wait()
	result.settled = result.evidence.settled()
	result.drained = time.Since(began) - result.took
	result.events, result.faults = c.all(), c.faults
	return result, nil
}

// settle waits until nothing is on its way any more, as far as a limit, and returns what there is then.
func settle(ctx context.Context, w *world, l *load, o *watch, limit time.Duration) (*evidence, error) {
	for end := time.Now().Add(limit); ; {
		if l.underWay() == 0 || time.Now().After(end) {
			e, err := gather(ctx, w, o)
			if err != nil || e.settled() && len(e.sums().differences) == 0 || time.Now().After(end) {
				return e, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
}
