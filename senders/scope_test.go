package senders

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
)

// sickly says whether a device is among so many of a hundred.
func sickly(device string, percent uint32) bool {
	h := fnv.New32a()
	fmt.Fprint(h, device, "!")
	return h.Sum32()%100 < percent
}

// endsOf counts what jobs have come to.
func (b *bench) endsOf(jobs []*job) map[pb.Outcome]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[pb.Outcome]int{}
	for _, j := range jobs {
		if v, ok := b.ended[j]; ok && v.Next == End {
			n[v.Outcome]++
		}
	}
	return n
}

// ofRun gives the jobs of a run of its own.
func ofRun(run string, jobs []*job) []*job {
	for _, j := range jobs {
		j.name, j.delivery.Run = run, run
	}
	return jobs
}

// Subscriptions that a service refuses by 507, because nobody is there for them, keep nobody else waiting, neither in
// their own campaign nor in the next.
func TestDeadSubscriptionsHoldNobodyUp(t *testing.T) {
	for _, percent := range []uint32{50, 90} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
					time.Sleep(10 * time.Millisecond)
					if sickly(r.Delivery.Device, percent) {
						return status(503)
					}
					return status(200)
				})
				d := b.destination("w")
				first := b.push(d, 500)
				b.pass(2 * time.Second)
				good := 0
				for _, j := range first {
					if !sickly(j.delivery.Device, percent) {
						good++
					}
				}
				if got := b.endsOf(first)[pb.Outcome_OUTCOME_ACCEPTED]; got != good {
					t.Errorf("%d of %d good ones went in two seconds", got, good)
				}
				var second []*job
				for len(second) < 60 {
					if j := b.job(d, time.Hour); !sickly(j.delivery.Device, percent) {
						second = append(second, j)
					}
				}
				d.push(ofRun("second", second), time.Now())
				b.pass(500 * time.Millisecond)
				if got := b.endsOf(second)[pb.Outcome_OUTCOME_ACCEPTED]; got != 60 {
					t.Errorf("%d of 60 of the second campaign went at once", got)
				}
			})
		})
	}
}

// When all that is asked fails, and it is one campaign's, the others are asked before the destination counts as ill.
func TestOneCampaignsFailuresAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			time.Sleep(5 * time.Millisecond)
			if r.Delivery.Run == "odd" {
				return status(503)
			}
			return status(200)
		})
		d := b.destination("w")
		odd := ofRun("odd", b.push(d, 0))
		for range 300 {
			odd = append(odd, ofRun("odd", []*job{b.job(d, time.Hour)})...)
		}
		d.push(odd, time.Now())
		b.pass(tickEvery)
		fine := ofRun("fine", func() (jobs []*job) {
			for range 300 {
				jobs = append(jobs, b.job(d, time.Hour))
			}
			return jobs
		}())
		d.push(fine, time.Now())
		b.pass(time.Second)
		if got := b.endsOf(fine)[pb.Outcome_OUTCOME_ACCEPTED]; got != 300 {
			t.Errorf("%d of 300 went, beside a campaign whose deliveries all fail; state %v", got, stateOf(d))
		}
	})
}

// Tokens of another project: those that are right have their messages, and the others end by their own rule, however many
// they are. None ends before one has passed.
func TestOthersTellATokenFromTheCredential(t *testing.T) {
	for _, percent := range []uint32{10, 50, 95, 99} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
					time.Sleep(10 * time.Millisecond)
					if sickly(r.Delivery.Device, percent) {
						return status(409)
					}
					return status(200)
				})
				d := b.destination("w")
				h := &hop{bench: b, d: d, out: b.push(d, 1000)}
				for range 30 {
					h.pass()
					late := b.job(d, 24*time.Hour)
					for sickly(late.delivery.Device, percent) {
						late = b.job(d, 24*time.Hour)
					}
					d.push([]*job{late}, time.Now())
					h.out = append(h.out, late)
				}
				good, all := 0, len(h.out)+len(h.topic)
				for _, j := range h.out {
					if !sickly(j.delivery.Device, percent) {
						good++
					}
				}
				ends := b.endsOf(h.out)
				if good-ends[pb.Outcome_OUTCOME_ACCEPTED] > 1 { // that came last
					t.Errorf("%d of %d good ones went", ends[pb.Outcome_OUTCOME_ACCEPTED], good)
				}
				// Those that were asked after the last good one have nobody to tell of them.
				if got := ends[pb.Outcome_OUTCOME_REJECTED]; got < (all-good)*8/10 {
					t.Errorf("%d of %d others ended", got, all-good)
				}
			})
		})
	}
}

// A credential that is wrong for all of them ends nobody: they wait, few are tried, and all go when it is mended.
func TestAWrongCredentialEndsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrong atomic.Bool
		wrong.Store(true)
		b := newBench(t, refuses(&wrong, 409, 10*time.Millisecond))
		d := b.destination("w")
		h := &hop{bench: b, d: d, out: b.push(d, 1000)}
		for range 60 {
			h.pass()
		}
		if got := stateOf(d); got != stateStopped {
			t.Errorf("state is %v", got)
		}
		if n := len(b.endsOf(h.out)); n != 0 {
			t.Errorf("they ended: %v", b.endsOf(h.out))
		}
		if got := b.requestsTo(d); got > startLimit+illAtOnce+1040 {
			t.Errorf("%d requests in a minute", got)
		}
		wrong.Store(false)
		for range 40 {
			h.pass()
		}
		if got := b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED]; got != 1000 {
			t.Errorf("%d of 1000 went when it was mended; %d wait", got, len(h.topic))
		}
	})
}

// Targets that never answer, or late, hold no place that others could have.
func TestTargetsThatHangHoldNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(ctx context.Context, r *Request) (*wire.Result, error) {
			if sickly(r.Delivery.Device, 90) {
				return hang(ctx)
			}
			time.Sleep(10 * time.Millisecond)
			return status(200)
		})
		d := b.destination("w")
		var jobs []*job
		for range 30 {
			jobs = append(jobs, b.push(d, 30)...)
			b.pass(time.Second)
		}
		b.pass(2 * time.Second)
		good := 0
		for _, j := range jobs {
			if !sickly(j.delivery.Device, 90) {
				good++
			}
		}
		if got := b.endsOf(jobs)[pb.Outcome_OUTCOME_ACCEPTED]; got != good {
			t.Errorf("%d of %d good ones went, while 270 others hung", got, good)
		}
	})
}

// chrome takes so many a minute of an app, whoever they are for: by fixed minutes, or by a bucket.
type chrome struct {
	bucket bool

	mu sync.Mutex
	// perMinute is the limit; with 0 there is none.
	perMinute float64
	minute    int64
	tokens    float64
	at        time.Time
	refused   int
}

func (c *chrome) takes(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.perMinute == 0:
		return true
	case c.bucket:
		c.tokens = min(100, c.tokens+now.Sub(c.at).Seconds()*c.perMinute/60)
		c.at = now
	case now.Unix()/60 != c.minute:
		c.minute, c.tokens = now.Unix()/60, c.perMinute
	}
	if c.tokens < 1 {
		c.refused++
		return false
	}
	c.tokens--
	return true
}

func (c *chrome) limit(perMinute float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.perMinute = perMinute
}

func (c *chrome) refusals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// A service that takes 1,000 a minute is kept to that within minutes: nearly all that it takes is used, hardly anything is
// refused any more, and what is counts no attempt. It is shown. When the limit is gone, it is soon forgotten.
func TestARateIsLearnt(t *testing.T) {
	const quick, slow = 20 * time.Millisecond, 300 * time.Millisecond
	for _, is := range []struct {
		bucket bool
		takes  time.Duration
		runs   int
		sick   int // of another run, whose targets are limited for their own sake
	}{
		{false, quick, 1, 0},
		{true, quick, 1, 0},
		{false, slow, 1, 0},
		{true, slow, 1, 0},
		{false, quick, 3, 0},
		{true, quick, 12, 0},
		{true, quick, 6000, 0},
		{true, quick, 2, 2000},
	} {
		t.Run(fmt.Sprintf("bucket %t, %v, %d runs, %d sick", is.bucket, is.takes, is.runs, is.sick), func(t *testing.T) {
			if testing.Short() && (is.runs > 12 || is.sick > 0) {
				t.Skip("a minute with the race detector; the whole suite runs it")
			}
			synctest.Test(t, func(t *testing.T) {
				service := &chrome{perMinute: 1000, bucket: is.bucket}
				b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
					time.Sleep(is.takes)
					if r.Delivery.Run == "sick" {
						return status(429)
					}
					if service.takes(time.Now()) {
						return status(200)
					}
					return status(429)
				})
				d := b.destination("w")
				h := &hop{bench: b, d: d, out: b.pushRun(d, "sick", is.sick)}
				for i := range is.runs {
					h.out = append(h.out, b.pushRun(d, fmt.Sprint("run", i), 12_000/is.runs)...)
				}
				for range 200 {
					h.pass()
				}
				if s := d.status(time.Now()); s.PerMinute < 700 || s.PerMinute > 1300 || s.PerMinuteSince == 0 {
					t.Errorf("it shows %.0f a minute, since %d", s.PerMinute, s.PerMinuteSince)
				}
				taken, refused, attempts := b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED], service.refusals(), h.attempts
				for range 300 {
					h.pass()
				}
				taken, refused = b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED]-taken, service.refusals()-refused
				if taken < 4_000-is.sick/4 || refused > taken/10 || is.sick == 0 && h.attempts > attempts {
					t.Errorf("in five minutes it took %d of 5,000 and refused %d, of which %d counted as attempts", taken, refused, h.attempts-attempts)
				}
				service.limit(0)
				for range 420 + is.sick/5 { // the sick ones take their part of it
					h.pass()
				}
				if got := b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED]; got != 12_000 {
					t.Errorf("seven minutes and more after the limit was lifted %d of 12,000 have gone, at %.0f a minute", got, d.known.rate()*60)
				}
			})
		})
	}
}

// Targets that are limited one by one teach no rate.
func TestSingleTargetsTeachNoRate(t *testing.T) {
	for _, percent := range []uint32{20, 40, 60, 95} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
					time.Sleep(20 * time.Millisecond)
					if sickly(r.Delivery.Device, percent) {
						return status(429)
					}
					return status(200)
				})
				d := b.destination("w")
				limited := 0
				var jobs []*job
				for range 240 {
					jobs = append(jobs, b.push(d, 50)...)
					b.pass(time.Second)
					if d.known.rate() > 0 {
						limited++
					}
				}
				good := 0
				for _, j := range jobs {
					if !sickly(j.delivery.Device, percent) {
						good++
					}
				}
				if got := b.endsOf(jobs)[pb.Outcome_OUTCOME_ACCEPTED]; got != good {
					t.Errorf("%d of %d good ones went", got, good)
				}
				if limited > 15 {
					t.Errorf("a rate held for %d of 240 s", limited)
				}
			})
		})
	}
}

// A campaign to targets that are all limited for their own sake teaches no rate, while another's pass: not even a trial holds that up.
func TestACampaignThatIsLimitedTeachesNoRate(t *testing.T) {
	for _, beside := range []int{10, 50, 200} { // a second
		synctest.Test(t, func(t *testing.T) {
			var limited atomic.Int64
			b := roomy(t, func(_ context.Context, r *Request) (*wire.Result, error) {
				time.Sleep(20 * time.Millisecond)
				if r.Delivery.Run == "sick" {
					limited.Add(1)
					return status(429)
				}
				return status(200)
			})
			d := b.destination("w")
			h := &hop{bench: b, d: d}
			var jobs []*job
			for i := range 120 {
				if i%10 == 5 {
					h.out = append(h.out, b.pushRun(d, "sick", 500)...)
				}
				jobs = append(jobs, b.pushRun(d, "well", beside)...)
				h.pass()
				if rate := d.known.rate(); rate > 0 {
					t.Fatalf("%d a second beside it: after %d s %.1f a second are tried", beside, i, rate)
				}
			}
			if n := limited.Load(); n < 1000 {
				t.Errorf("%d were limited only", n)
			}
			if got := b.endsOf(jobs)[pb.Outcome_OUTCOME_ACCEPTED]; got != len(jobs) {
				t.Errorf("%d of %d went", got, len(jobs))
			}
		})
	}
}

// What this process has no credential for waits, and is shown so; others are not touched.
func TestWithoutACredentialItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) { return status(200) })
		missing, there := b.destination("m"), b.destination("t")
		missing.block(time.Now())
		h := &hop{bench: b, d: missing, out: b.push(missing, 300)}
		others := b.push(there, 300)
		for range 30 {
			h.pass()
		}
		s := missing.status(time.Now())
		if s.State != pb.DestinationState_DESTINATION_STATE_BLOCKED || s.Reason != "no-credential" || !s.Shut || s.Until != 0 || s.Parked == 0 {
			t.Errorf("status %v", s)
		}
		if n := len(b.endsOf(h.out)); n != 0 || b.requestsTo(missing) != 0 || h.attempts != 0 {
			t.Errorf("ends %v, %d requests, %d attempts", b.endsOf(h.out), b.requestsTo(missing), h.attempts)
		}
		if got := b.endsOf(others)[pb.Outcome_OUTCOME_ACCEPTED]; got != 300 {
			t.Errorf("%d of 300 others went", got)
		}
	})
}

// A destination is shut to those who would expand for it while it has enough to find out with by itself, and only then.
func TestShutNeedsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, *Request) (*wire.Result, error) { return status(503) })
		d := b.destination("w")
		if d.status(time.Now()).Shut {
			t.Error("it is shut before anything was asked")
		}
		b.push(d, 2000)
		b.pass(time.Second)
		if s := d.status(time.Now()); s.State != stateWaiting || s.Shut {
			t.Errorf("at once: %v", s)
		}
		b.pass(patience)
		if s := d.status(time.Now()); s.State != stateWaiting || !s.Shut {
			t.Errorf("with deliveries that wait: %v", s)
		}
		// All have been asked: another may be the one that passes.
		d.takeOut(func(*job) bool { return true })
		d.parked, d.surplus = tally{}, tally{}
		if s := d.status(time.Now()); s.State != stateWaiting || s.Shut {
			t.Errorf("without any that was not asked: %v", s)
		}
		b.restrain(control.Destination(fcm, "shop", "w"), &pb.Restraint{Paused: true})
		if !d.status(time.Now()).Shut {
			t.Error("it is not shut while an operator holds it")
		}
	})
}

// What passes in one class's lane tells the other's: it goes to the same destination.
func TestLanesTellEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
			if r.Delivery.Class == urgent {
				return status(200)
			}
			return status(409)
		})
		first, second := b.behind(b.urgent, "w"), b.destination("w")
		refused := b.push(second, 5)
		b.pass(tickEvery)
		if n := len(b.endsOf(refused)); n != 0 {
			t.Fatalf("%d ended before any had passed", n)
		}
		b.push(first, 1)
		b.pass(2 * tickEvery)
		if got := b.endsOf(refused)[pb.Outcome_OUTCOME_REJECTED]; got != 5 {
			t.Errorf("%d of 5 ended when one of the other lane had passed: %v", got, b.count(refused))
		}
		if got := stateOf(second); got != stateOpen {
			t.Errorf("state %v", got)
		}
	})
}

// A fault that is some targets' only leaves its destination open. When it ends, those that it struck are back within seconds, or a small
// part of what they would have waited, and not only when their backoff is over. While it lasts it costs them no attempt before their time,
// and they are asked ever more seldom, also where others fail now and then and pass, which shows that something is well again. One target
// that fails on is asked no more often than it has attempts.
func TestWhatSomeFailedOfComesBackWhenItEnds(t *testing.T) {
	for _, c := range []struct {
		name          string
		struck, flaps int // so many of the others in a hundred fail once
		lasts, within time.Duration
		unanswered    bool
		most          int // requests each
		back          float64
		sick          int // of another campaign that was there first, who fail on
	}{
		{name: "one", struck: 1, lasts: 4 * time.Minute, within: 10 * time.Second, most: 7},
		{name: "enough not to be their own", struck: 12, lasts: 10 * time.Minute, within: 40 * time.Second, most: 17, back: 0.7},
		{name: "many", struck: 100, lasts: 4 * time.Minute, within: 20 * time.Second, most: 8, back: 0.9},
		{name: "beside others that fail now and then", struck: 30, flaps: 50, lasts: 4 * time.Minute, within: 20 * time.Second, most: 30, back: 0.9},
		{name: "unanswered", struck: 100, lasts: 4 * time.Minute, within: 20 * time.Second, unanswered: true, most: 8, back: 0.4},
		{name: "unanswered beside others", struck: 100, flaps: 10, lasts: 4 * time.Minute, within: 20 * time.Second, unanswered: true, most: 9},
		{name: "beside a campaign that fails on", struck: 100, lasts: 4 * time.Minute, within: 20 * time.Second, most: 9, back: 0.9, sick: 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &someFail{t: t, asked: map[string]int{}, accepted: map[string]bool{}, unanswered: c.unanswered}
				w.model = &Model{Provider: &fakeProvider{platform: fcm, ceiling: 1000}, Rand: rand.New(rand.NewPCG(1, 1)), Answer: w.answer, Ended: w.ended}
				w.model.Start(map[string]*message.Compiled{})
				w.push("sick", c.sick)
				w.push("struck", c.struck)
				w.pass(c.lasts, c.flaps)
				n, _ := w.struck()
				t.Logf("%.1f requests each", float64(n)/float64(c.struck))
				if n > c.most*c.struck {
					t.Errorf("%d requests for %d that fail, want %d each at most", n, c.struck, c.most)
				}
				w.pass(c.within, c.flaps)
				if _, back := w.struck(); float64(back) < c.back*float64(c.struck) {
					t.Errorf("%d of %d are back %v after its end", back, c.struck, c.within)
				}
				w.model.Stop()
			})
		})
	}
}

// someFail is a service that fails the deliveries of one run until it is over, and others' once.
type someFail struct {
	t          *testing.T
	model      *Model
	unanswered bool
	hangs      bool // the struck ones are not answered, and time passes

	mu       sync.Mutex // guards what follows
	over     bool
	asked    map[string]int
	accepted map[string]bool
}

func (w *someFail) answer(ctx context.Context, r *Request) wire.Result {
	time.Sleep(10 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	d := r.Delivery.Device
	w.asked[d]++
	switch {
	case r.Delivery.Run == "limited":
		return wire.Result{Status: 500, Sent: true} // the device's own: see Classify
	case w.hangs && (r.Delivery.Run == "struck" && !w.over || strings.HasPrefix(r.Delivery.Run, "sick")):
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return wire.Result{Err: ctx.Err(), Sent: true}
	case !(r.Delivery.Run == "sick" || r.Delivery.Run == "struck" && !w.over || r.Delivery.Run == "flaps" && w.asked[d] == 1):
		return wire.Result{Status: 200, Sent: true}
	case w.unanswered:
		return wire.Result{Err: errors.New("reset"), Sent: true}
	}
	return wire.Result{Status: 503, Sent: true}
}

func (w *someFail) ended(d *pb.Delivery, o pb.Outcome, _ time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o != pb.Outcome_OUTCOME_ACCEPTED && !strings.HasPrefix(d.Run, "sick") {
		w.t.Errorf("%s ended as %v", d.Device, o)
	}
	w.accepted[d.Device] = true
}

func (w *someFail) push(run string, n int) {
	for i := range n {
		device := fmt.Sprint(run, time.Now().UnixMilli(), ".", i)
		w.model.Push(deliveryOf(run, device))
	}
}

// deliveryOf is a delivery of a run.
func deliveryOf(run, device string) *pb.Delivery {
	return &pb.Delivery{
		Id: make([]byte, 16), App: "shop", Run: run, Device: device, Class: bulk, ExpiresAt: time.Now().Add(24 * time.Hour).UnixMilli(),
		Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "a-" + device}}},
	}
}

// steps lets time go by.
func (w *someFail) steps(span time.Duration) {
	for n := range int(span / tickEvery) {
		w.model.Step(n%5 == 0)
	}
}

// pass lets time go by, with a hundred others each ten seconds.
func (w *someFail) pass(span time.Duration, flaps int) {
	for n := range int(span / tickEvery) {
		if n%100 == 0 {
			w.push("well", 100-flaps)
			w.push("flaps", flaps)
		}
		w.model.Step(n%5 == 0)
	}
}

// struck tells how many requests there were for those that were struck, and how many have passed; what strikes them ends.
func (w *someFail) struck() (asked, back int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for d, n := range w.asked {
		if strings.HasPrefix(d, "struck") {
			asked += n
			if w.accepted[d] {
				back++
			}
		}
	}
	return asked, back
}

// One that is refused for the sake of its own device, by a limit of that, shows nothing of a service that answers nobody else: it opens no
// destination that is shut for that. Else the others would be asked, and hang, again and again, spend their attempts, and be back one by
// one when it is over.
func TestADevicesLimitDoesNotEndAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &someFail{t: t, asked: map[string]int{}, accepted: map[string]bool{}, hangs: true}
		w.model = &Model{Provider: &fakeProvider{platform: fcm, ceiling: 1000}, Rand: rand.New(rand.NewPCG(1, 1)), Answer: w.answer, Ended: w.ended}
		w.model.Start(map[string]*message.Compiled{})
		for range 60 {
			w.push("limited", 40)
			w.push("struck", 40)
			w.steps(time.Second)
		}
		if n, _ := w.struck(); n > 2400 {
			t.Errorf("%d requests for 2400 that nobody answers, want one each at most", n)
		}
		w.pass(10*time.Second, 0)
		if _, back := w.struck(); back < 2376 {
			t.Errorf("%d of 2400 are back ten seconds after its end", back)
		}
		w.model.Stop()
	})
}

// Nobody was answered, and all were asked in vain. When that is over but for ten campaigns, the eleventh has not to wait until each of them has
// had its turn to show that it is not: each has a probe in each round.
func TestEachCampaignHasItsProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &someFail{t: t, asked: map[string]int{}, accepted: map[string]bool{}, hangs: true}
		w.model = &Model{Provider: &fakeProvider{platform: fcm, ceiling: 1000}, Rand: rand.New(rand.NewPCG(1, 1)), Answer: w.answer, Ended: w.ended}
		w.model.Start(map[string]*message.Compiled{})
		for i := range 10 {
			w.push(fmt.Sprint("sick", i), 30)
		}
		w.push("struck", 300)
		w.steps(2 * time.Minute)
		if _, back := w.struck(); back > 0 {
			t.Fatalf("%d were accepted by whom nobody hears", back)
		}
		w.steps(15 * time.Second)
		if _, back := w.struck(); back < 290 {
			t.Errorf("%d of 300 are back fifteen seconds after its end", back)
		}
		w.model.Stop()
	})
}

// A campaign to devices that all fail, of a destination's own, is under way or has just been. The next one, to others, is through in no
// time all the same: it does not stand in line behind what fails, nor wait for places that those hold whose answers do not come.
func TestASickCampaignDoesNotHoldUpTheNext(t *testing.T) {
	const devices = 1000
	for _, kind := range []string{"503", "409", "hangs"} {
		for _, gap := range []time.Duration{0, 20 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(fmt.Sprint(kind, " ", gap), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &sickCampaign{kind: kind}
					s.model = &Model{Provider: &fakeProvider{platform: fcm, ceiling: 4000}, Rand: rand.New(rand.NewPCG(1, 1)), Answer: s.answer, Ended: s.ended}
					s.model.Start(map[string]*message.Compiled{})
					s.push("sick-first", devices)
					s.pass(3 * time.Second)
					for n := range 3 {
						s.push(fmt.Sprint("sick-", n), devices)
						time.Sleep(gap)
						began := time.Now()
						s.push(fmt.Sprint("well-", n), devices)
						s.pass(4 * time.Second)
						if took := s.last.Sub(began); int(s.accepted.Load()) != devices*(n+1) || took > 500*time.Millisecond {
							t.Errorf("campaign %d: %d of %d are accepted, the last after %v", n, s.accepted.Load(), devices*(n+1), took)
						}
					}
					s.model.Stop()
				})
			})
		}
	}
}

// sickCampaign is a service that fails all of the runs whose names begin with "sick".
type sickCampaign struct {
	kind     string
	model    *Model
	accepted atomic.Int64
	mu       sync.Mutex
	last     time.Time
}

func (s *sickCampaign) answer(ctx context.Context, r *Request) wire.Result {
	time.Sleep(5 * time.Millisecond)
	if !strings.HasPrefix(r.Delivery.Run, "sick") {
		return wire.Result{Status: 200, Sent: true}
	}
	if n, err := strconv.Atoi(s.kind); err == nil {
		return wire.Result{Status: n, Sent: true}
	}
	<-ctx.Done()
	return wire.Result{Err: ctx.Err(), Sent: true}
}

func (s *sickCampaign) ended(d *pb.Delivery, o pb.Outcome, at time.Time) {
	if strings.HasPrefix(d.Run, "sick") || o != pb.Outcome_OUTCOME_ACCEPTED {
		return
	}
	s.accepted.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = at
}

func (s *sickCampaign) push(run string, n int) {
	all := make([]*pb.Delivery, n)
	for i := range all {
		device := fmt.Sprint(run[:4], i) // each campaign is to the same ones
		all[i] = deliveryOf(run, device)
	}
	s.model.Push(all...)
}

func (s *sickCampaign) pass(span time.Duration) {
	for n := range int(span / tickEvery) {
		s.model.Step(n%5 == 0)
	}
}

// An outage in which everything is too much for the service is no rate: when it ends all goes on, however long it was, whatever
// passed before it, and however much was launched meanwhile.
func TestAnOutageOfLimitsTeachesNoRate(t *testing.T) {
	for _, is := range []struct{ outage, before, during, each int }{ // seconds, and deliveries a second, or at once
		{2, 200, 0, 200},
		{4, 200, 0, 200},
		{6, 200, 0, 200},
		{9, 200, 0, 200},
		{15, 200, 0, 200},
		{30, 200, 0, 200},
		{60, 200, 0, 200},
		{6, 100, 6000, 0},
		{15, 100, 6000, 0},
		{30, 100, 6000, 0},
		{60, 100, 6000, 0},
		{15, 30, 6000, 10},
		{30, 30, 6000, 10},
	} {
		t.Run(fmt.Sprintf("%d s, %d and %d a second, %d at once", is.outage, is.before, is.each, is.during), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out atomic.Bool
				b := newBench(t, refuses(&out, 429, 20*time.Millisecond))
				d := b.destination("w")
				h := &hop{bench: b, d: d}
				asked := 12 * (is.during / 12)
				seconds := func(n, each int) (limited int) {
					for i := range n {
						asked += each
						h.out = append(h.out, b.pushRun(d, fmt.Sprint("run", i%12), each)...)
						h.pass()
						if d.known.rate() > 0 {
							limited++
						}
					}
					return limited
				}
				seconds(20, is.before)
				out.Store(true)
				for i := range 12 {
					h.out = append(h.out, b.pushRun(d, fmt.Sprint("launched", i), is.during/12)...)
				}
				seconds(is.outage, is.each)
				out.Store(false)
				limited := seconds(30, is.each)
				if s := d.status(time.Now()); s.PerMinute > 0 || limited > 5 {
					t.Errorf("after its end a rate held for %d of 30 s, and %.0f a minute is kept", limited, s.PerMinute)
				}
				for range 60 { // as long as who was told that it was too much waits
					h.pass()
				}
				if got := b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED]; got != asked {
					t.Errorf("%d of %d went", got, asked)
				}
			})
		})
	}
}

// Nor is one that strikes a part, or comes twice: it may end just as a rate is tried, which then has cured nothing.
func TestAPartialOutageOfLimitsTeachesNoRate(t *testing.T) {
	for _, percent := range []uint32{50, 80, 95, 100} {
		for _, outage := range []int{3, 6, 9, 30} { // seconds
			t.Run(fmt.Sprintf("%d of a hundred for %d s", percent, outage), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var out atomic.Bool
					b := newBench(t, func(_ context.Context, r *Request) (*wire.Result, error) {
						time.Sleep(20 * time.Millisecond)
						if out.Load() && sickly(r.Delivery.Device, percent) {
							return status(429)
						}
						return status(200)
					})
					d := b.destination("w")
					h := &hop{bench: b, d: d}
					asked := 0
					seconds := func(n int) (limited int) {
						for i := range n {
							asked += 200
							h.out = append(h.out, b.pushRun(d, fmt.Sprint("run", i%12), 200)...)
							h.pass()
							if rate := d.known.rate(); rate > 0 && rate < 200 {
								limited++
							}
						}
						return limited
					}
					seconds(20)
					for range 2 {
						seconds(20)
						out.Store(true)
						seconds(outage)
						out.Store(false)
					}
					limited := seconds(120)
					if s := d.status(time.Now()); s.PerMinute > 0 || limited > 8 {
						t.Errorf("after its end a rate held for %d of 120 s, and %.0f a minute is kept", limited, s.PerMinute)
					}
					for range 60 {
						h.pass()
					}
					if got := b.endsOf(h.out)[pb.Outcome_OUTCOME_ACCEPTED]; got != asked {
						t.Errorf("%d of %d went", got, asked)
					}
				})
			})
		}
	}
}
