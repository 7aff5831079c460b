package main

import (
	"context"
	"time"

	"github.com/belfry/belfry/simulator"
)

// roll restarts every process in turn, so many times, in good order and under load.
func (c *chaos) roll(ctx context.Context, rounds int) {
	for n := range rounds {
		c.say("round %d of %d", n+1, rounds)
		for _, i := range c.w.of("") {
			if ctx.Err() != nil {
				return
			}
			e := c.on("SIGTERM", i, "")
			was := i.running()
			c.check(i.stop())
			c.check(i.start())
			c.end(e, was)
			c.pause(ctx, 500*time.Millisecond) // it takes up its work before the next one goes
		}
	}
}

// usual makes providers take their time, as real ones do, so that there is always something in flight.
func (c *chaos) usual() error {
	_, err := c.w.fault("usual", &simulator.Fault{
		Kind: simulator.Latency, Delay: simulator.Duration(20 * time.Millisecond), Jitter: simulator.Duration(60 * time.Millisecond),
	})
	return err
}
