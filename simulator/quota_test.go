package simulator

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// passed asks n times, the time between apart, and counts the answers that are good.
func passed(t *testing.T, s *Simulator, send *sender, d device, from string, n int, between time.Duration) (good int) {
	t.Helper()
	for i := range n {
		if i > 0 {
			time.Sleep(between) // in a bubble
		}
		r, body := send.push(d, i)
		c := coreRequest(r, body, d.service)
		c.From = from
		if a := s.Ask(t.Context(), c); a.Status == goods[d.service] {
			good++
		}
	}
	return good
}

// What a minute's quota lets through depends on how it counts: at once, trickling, or by fixed windows.
func TestQuotaCounts(t *testing.T) {
	s := start(t, func(o *Options) { o.Population.Mix = Mix{APNs: 1, FCM: 1, WebPush: 4, Ntfy: 4} })
	send := newSender(t, s)
	d := healthy(t, s, Ntfy, 1)[0]
	type step struct {
		after time.Duration
		ask   int
		pass  int
	}
	for _, c := range []struct {
		name  string
		fault Fault
		steps []step
	}{
		{"a bucket of a minute's", Fault{PerMinute: 60}, []step{{0, 100, 60}, {10 * time.Second, 100, 10}, {time.Hour, 100, 60}}},
		{"fixed minutes", Fault{PerMinute: 60, Window: true}, []step{{0, 100, 60}, {50 * time.Second, 100, 0}, {10 * time.Second, 100, 60}, {59 * time.Second, 1, 0}}},
		{"a bucket of one", Fault{PerSecond: 0.2}, []step{{0, 3, 1}, {5 * time.Second, 3, 1}, {time.Minute, 3, 1}}},
		{"fixed seconds", Fault{PerSecond: 5, Window: true}, []step{{0, 10, 5}, {time.Second, 10, 5}}},
		{"ntfy's", Fault{PerMinute: 12, Burst: 60, Each: EachAddress}, []step{{0, 100, 60}, {5 * time.Second, 10, 1}, {10 * time.Second, 10, 2}, {time.Hour, 100, 60}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.fault.Kind, c.fault.Origin = Quota, "ntfy"
				setFault(t, s, "q", c.fault)
				defer s.ClearFaults()
				refused := 0
				for i, st := range c.steps {
					time.Sleep(st.after)
					if got := passed(t, s, send, d, "192.0.2.1", st.ask, 0); got != st.pass {
						t.Errorf("step %d: %d of %d passed, want %d", i, got, st.ask, st.pass)
					}
					refused += st.ask - st.pass
				}
				if got := struck(t, s, "q"); got != int64(refused) {
					t.Errorf("it struck %d times, want %d", got, refused)
				}
			})
		})
	}
}

// A quota counts apart what it is told to.
func TestQuotaForEach(t *testing.T) {
	s := start(t, withNtfy)
	send := newSender(t, s)
	two := healthy(t, s, Ntfy, 2)
	other := pickWhere(t, s, "other", func(d device) bool { return d.service == Ntfy && d.fate == Healthy })
	for each, want := range map[Each]string{"": "1 0 0 0", EachApp: "1 0 1 0", EachTarget: "1 1 1 0", EachAddress: "1 0 0 1"} {
		synctest.Test(t, func(t *testing.T) {
			setFault(t, s, "q", Fault{Kind: Quota, Origin: "ntfy", PerMinute: 1, Each: each})
			defer s.ClearFaults()
			got := fmt.Sprint(
				passed(t, s, send, two[0], "192.0.2.1", 1, 0), passed(t, s, send, two[1], "192.0.2.1", 1, 0),
				passed(t, s, send, other, "192.0.2.1", 1, 0), passed(t, s, send, two[0], "192.0.2.2", 1, 0),
			)
			if got != want {
				t.Errorf("each %q: passed %s, want %s", each, got, want)
			}
		})
	}
}

// A provider's clock that is set back gives nothing away, and holds nothing up.
func TestQuotaAndAClockThatGoesBack(t *testing.T) {
	var q quota
	f, c, now := &Fault{PerMinute: 60}, &call{Request: &Request{}}, time.Unix(1e9, 0)
	take := func() (n int) {
		for q.take(f, c, now) {
			n++
		}
		return n
	}
	if n := take(); n != 60 {
		t.Errorf("first %d", n)
	}
	now = now.Add(-time.Hour)
	if n := take(); n != 0 {
		t.Errorf("set back: %d", n)
	}
	now = now.Add(10 * time.Second)
	if n := take(); n != 10 {
		t.Errorf("ten seconds later: %d", n)
	}
}

// Chrome limits a site for a day, then 7, then 14, and forgets after 42.
func TestDisruptive(t *testing.T) {
	s := start(t, nil)
	demo, other := healthy(t, s, Chrome, 1)[0], pick(t, s, "other", Chrome, Healthy)
	mozilla := healthy(t, s, Mozilla, 1)[0]
	synctest.Test(t, func(t *testing.T) {
		find := func() time.Duration {
			setFault(t, s, "chrome", Fault{Kind: Disruptive, App: "demo", PerMinute: 3, Window: true, RetryAfter: 30})
			return time.Duration(s.Faults()["chrome"].For)
		}
		defer s.ClearFaults()
		send := newSender(t, s) // its VAPID headers are good for twelve hours
		if d := find(); d != day {
			t.Errorf("the first day limits for %v", d)
		}
		if n := passed(t, s, send, demo, "", 5, 0); n != 3 {
			t.Errorf("%d passed, want 3", n)
		}
		if n := passed(t, s, send, other, "", 5, 0) + passed(t, s, send, mozilla, "", 5, 0); n != 10 {
			t.Errorf("%d of 10 passed for another site and at another service", n)
		}
		time.Sleep(time.Hour)
		if d := find(); d != day {
			t.Errorf("the same day again limits for %v", d)
		}
		time.Sleep(day + time.Minute)
		if len(s.Faults()) != 0 {
			t.Error("it is not lifted after a day")
		}
		for i, want := range []time.Duration{7 * day, 14 * day, 14 * day} {
			if d := find(); d != want {
				t.Errorf("day %d limits for %v, want %v", i+2, d, want)
			}
			time.Sleep(want)
		}
		time.Sleep(chromeForgets - 14*day)
		if d := find(); d != day {
			t.Errorf("after 42 days it limits for %v", d)
		}
	})
	if err := s.SetFault("f", Fault{Kind: Disruptive, App: "demo"}); err != nil {
		t.Fatal(err)
	}
	if f := s.Faults()["f"]; f.PerMinute != 1000 || f.Origin != "chrome" {
		t.Errorf("%+v", f)
	}
}

// The same through the sockets, with the providers' clock in the test's hand.
func TestQuotaByTheProvidersClock(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	s := start(t, func(o *Options) { o.Now = clock.Now })
	setFault(t, s, "project", Fault{Kind: Quota, Platform: "fcm", App: "demo", PerMinute: 2})
	p := newPusher(t, s, "demo", FCM)
	p.want(1, 200)
	p.want(2, 200)
	p.want(3, 429)
	clock.Advance(30 * time.Second)
	p.want(4, 200)
	p.want(5, 429)
}
