package bench

import (
	"context"
	"fmt"
	"time"
)

// course follows a number until it is far enough and has come to rest. Belfry commits four times a second, so the number
// goes in steps: what is measured is from the first step to the last, or from begin to the last.
type course struct {
	what string
	// begin, unless nil, returns at the moment from which all that moves is measured.
	begin func(context.Context) error
	// read is the number now, and enough whether it is far enough.
	read   func(context.Context) (int, error)
	enough func(now int) bool
	// measured are the processes that move it, and server what they work against.
	measured []*process
	server   *process
}

// rest is how long a number must stand still: several commits.
const rest = time.Second

// run returns what was moved. Its operations are the steps after the first.
func (c course) run(ctx context.Context) (s sample, err error) {
	began, err := c.read(ctx)
	if err != nil {
		return s, err
	}
	if c.begin != nil {
		if err := c.begin(ctx); err != nil {
			return s, err
		}
	}
	m, err := c.meter()
	if err != nil {
		return s, err
	}
	first, last := began, began
	for moved := time.Now(); ; {
		if !pause(ctx, look) {
			return s, ctx.Err()
		}
		now, err := c.read(ctx)
		switch {
		case err != nil:
			return s, err
		case now == last && c.enough(last) && time.Since(moved) >= rest:
			return s, nil
		case now == last && time.Since(moved) > lostAfter:
			return s, fmt.Errorf("%s: nothing has moved for %v, from %d to %d", c.what, lostAfter, began, now)
		case now == last:
			continue
		}
		// If there is but one step, it is measured from the beginning.
		if s, err = m.end(max(now-first, first-now)); err == nil && first == began && c.begin == nil {
			first = now
			m, err = c.meter()
		}
		if err != nil {
			return s, err
		}
		last, moved = now, time.Now()
	}
}

func (c course) meter() (meter, error) {
	if c.server != nil {
		return newMeterOf(c.measured, c.server)
	}
	return newMeterOf(c.measured)
}
