package simulator

import (
	"sync"
	"time"
)

// quota counts what a fault lets through, apart for each that it says.
type quota struct {
	mu      sync.Mutex
	buckets map[payer]*bucket // guarded
}

// payer is who a bucket is for. What a quota does not tell apart is left empty.
type payer struct {
	app    int
	target key
	from   string
}

// bucket holds what may be taken now.
type bucket struct {
	tokens float64
	last   time.Time // when tokens was right; with windows, when the last one began
}

// take says whether a request is within the quota.
func (q *quota) take(f *Fault, c *call, now time.Time) bool {
	var who payer
	switch f.Each {
	case EachApp:
		who.app = c.app
	case EachTarget:
		who.target = c.target.key()
	case EachAddress:
		who.from = c.From
	}
	period, number := time.Second, f.PerSecond
	full := float64(max(f.Burst, 1))
	if f.PerMinute > 0 {
		period, number = time.Minute, f.PerMinute
		if f.Burst == 0 {
			full = number
		}
	}
	if f.Window {
		full = number
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.buckets[who]
	if b == nil {
		if q.buckets == nil {
			q.buckets = map[payer]*bucket{}
		}
		b = &bucket{tokens: full, last: now}
		q.buckets[who] = b
	}
	elapsed := now.Sub(b.last)
	if elapsed < 0 { // a wall clock may go back
		elapsed, b.last = 0, now
	}
	if f.Window {
		if whole := elapsed.Truncate(period); whole > 0 {
			b.tokens, b.last = full, b.last.Add(whole)
		}
	} else {
		b.tokens = min(full, b.tokens+float64(elapsed)/float64(period)*number)
		b.last = b.last.Add(elapsed)
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Chrome's limit on a site that sends many pushes and is visited little: so many a minute, the rest is answered 429. The
// first day on which it finds that limits the site for a day, a second one for 7, and each further one for 14; 42 days
// without one, and all is forgotten (developer.chrome.com/blog/web-push-rate-limits, 6 January 2026).
const (
	chromePerMinute = 1000
	day             = 24 * time.Hour
	chromeForgets   = 42 * day
)

var chromeSentences = [...]time.Duration{day, 7 * day, 14 * day}

// offence is how many days a site was found disruptive, and when last.
type offence struct {
	days int
	last time.Time
}

// sentence makes of a Disruptive the quota that it is today.
func (p *Providers) sentence(f *Fault, app uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, now := p.offences[app], p.now()
	switch since := now.Sub(o.last); {
	case o.days == 0 || since >= chromeForgets:
		o = offence{1, now}
	case since >= day: // it finds once a day
		o = offence{o.days + 1, now}
	}
	p.offences[app] = o
	f.Origin = Chrome.String()
	f.For = Duration(chromeSentences[min(o.days, len(chromeSentences))-1])
	if f.PerMinute == 0 {
		f.PerMinute = chromePerMinute
	}
}
