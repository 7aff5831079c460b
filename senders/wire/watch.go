package wire

import (
	"cmp"
	"time"

	"golang.org/x/net/http2"
)

const (
	// tick is how often deadlines are looked at while anything is waiting or in flight: so many requests have none of their
	// own to set, and to take back. rest is how often connections are looked at otherwise.
	tick = 25 * time.Millisecond
	rest = time.Second
	// idleFor is how long a connection stays without a stream. It is long because Apple asks to keep connections for hours,
	// and takes opening and closing for an attack.
	idleFor = time.Hour
)

var noDeadline time.Time

// now is the time by which requests are late, and peers silent: the wall's, less what the watch has found that this process
// did not run, because others had the cores, or it was stopped. What came meanwhile lies unread, and is no fault of the peer's: a
// request that ended for that would be sent twice.
func (c *Client) now() time.Time { return c.ran(time.Now()) }

func (c *Client) ran(wall time.Time) time.Time { return wall.Add(-time.Duration(c.lost.Load())) }

// watch looks after deadlines, silent and idle connections, and dials that were put off, until the client is closed.
func (c *Client) watch() {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-timer.C:
		case <-c.poke:
		}
		timer.Reset(c.look(time.Now()))
	}
}

// look is one round. It returns when the next is due.
func (c *Client) look(wall time.Time) time.Duration {
	c.mu.Lock()
	if late := wall.Sub(c.due); !c.due.IsZero() && late > tick {
		c.lost.Add(int64(late))
	}
	now := c.ran(wall)
	sends := c.sends
	late := c.queue.expire(now, nil)
	for r, end := range c.exchanges {
		if r.late(now) {
			end(errLate)
		}
	}
	c.waiting.Store(int64(c.queue.n))
	c.spread()
	all := append([]*conn(nil), c.all...)
	c.mu.Unlock()
	busy := false
	for _, k := range all {
		var flying bool
		late, flying = k.look(now, late)
		busy = busy || flying
	}
	c.answered(late)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resting = !busy && c.queue.n == 0 && !c.dialing && c.sends == sends && len(c.exchanges) == 0
	wait := tick
	if c.resting {
		wait = rest
	}
	c.due = wall.Add(wait)
	return wait
}

// look ends what is late on a connection and adds it to late, and sees whether the connection lives and is used. flying: it
// has streams open.
func (c *conn) look(now time.Time, late []Result) (_ []Result, flying bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams.all(func(s *stream) {
		if s.req.late(now) {
			late = append(late, c.lost(s, errLate))
			c.reset(s.id, http2.ErrCodeCancel, false)
			c.streams.close(s, localReset)
		}
	})
	switch {
	case !c.ready: // its dial has a deadline
	case c.ping.silent(now, c.frames):
		c.err = cmp.Or(c.err, ErrSilent)
		c.room.Store(0)
		_ = c.raw.Close()
	case c.streams.live > 0:
		c.used = now
	case c.draining || now.Sub(c.used) >= idleFor:
		if c.drain() {
			c.client.leave(c, false)
		}
	}
	if len(c.out) > 0 {
		c.nudge()
	}
	return late, c.streams.live > 0
}
