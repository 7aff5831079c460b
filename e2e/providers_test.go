package e2e

import (
	"testing"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// An app whose APNs credential is refused: that destination stops, its messages wait, everything else goes on, and once
// the credential is accepted it goes on by itself.
func TestWrongCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 1000, apps: []string{"demo", "other"}})
	w.start()
	for _, app := range w.apps {
		w.register(app)
	}
	w.fault("refuse", simulator.Fault{Kind: simulator.Credentials, Platform: "apns", App: "other"})
	for _, app := range w.apps {
		w.campaign(app, everyone("c1"))
	}
	demo := w.ended("demo", "c1")

	var other producer.Progress
	until(t, "the other app's FCM and web push are done, and its APNs is planned", func() (ok bool) {
		other, ok = w.progress("other", "c1")
		fcm, webpush := other.Platforms["fcm"], other.Platforms["webpush"]
		return ok && other.Platforms["apns"].Planned > 0 && fcm.Accepted > 0 && fcm.Pending == 0 && webpush.Accepted > 0 && webpush.Pending == 0
	})
	w.serve.says("destination is stopped", "other/")
	other, _ = w.progress("other", "c1")
	if apns := other.Platforms["apns"]; apns.Pending == 0 || apns.Pending != apns.Planned || other.State != "running" {
		t.Errorf("with its credential refused, APNs has %+v in state %s", apns.Counts, other.State)
	}
	if n := taken(w.receipts().ByStatus["apns"]); n != int64(demo.Platforms["apns"].Accepted) {
		t.Errorf("APNs accepted %d, and %d of the app whose credential is good", n, demo.Platforms["apns"].Accepted)
	}

	w.lift("refuse")
	w.balanced(demo, w.ended("other", "c1"))
	if sum := w.receipts(); sum.Repeats != 0 {
		t.Errorf("%d repeats", sum.Repeats)
	}
	w.serve.stop()
}

// A web push service that stands still slows its own devices only: all others are reached meanwhile.
func TestStall(t *testing.T) {
	t.Parallel()
	const devices, stalled = 5000, "mozilla"
	w := newWorld(t, options{devices: devices})
	w.start()
	w.register("demo")
	w.slow(150 * time.Millisecond)
	w.campaign("demo", everyone("c1"))
	until(t, stalled+" has accepted some", func() bool { return taken(w.receipts().ByOrigin[stalled]) > 0 })
	w.fault("stall", simulator.Fault{Kind: simulator.Stall, Origin: stalled})
	began, before := time.Now(), w.receipts()

	var p producer.Progress
	until(t, "all others are done, and the stall has lasted", func() (ok bool) {
		p, ok = w.progress("demo", "c1")
		apns, fcm := p.Platforms["apns"], p.Platforms["fcm"]
		return ok && apns.Accepted > 0 && apns.Pending == 0 && fcm.Accepted > 0 && fcm.Pending == 0 &&
			w.struck("stall") > 0 && time.Since(began) > 5*time.Second
	})
	during := w.receipts()
	others := func(s simulator.Summary) (n int64) {
		for origin, answers := range s.ByOrigin {
			if origin != stalled {
				n += taken(answers)
			}
		}
		return n
	}
	if now, then := others(during), others(before); now <= then {
		t.Errorf("the others stood still with %s: %d accepted before, %d after", stalled, then, now)
	}
	if p.Platforms["webpush"].Pending == 0 {
		t.Error("nothing waits for the service that stands still")
	}

	w.lift("stall")
	w.lift("slow")
	w.balanced(w.ended("demo", "c1"))
	end := w.receipts()
	if end.Repeats != 0 {
		t.Errorf("%d repeats", end.Repeats)
	}
	if now, then := others(end), others(during); now != then {
		t.Errorf("the others had %d of their %d messages when %s went on", then, now, stalled)
	}
	if now, then := taken(end.ByOrigin[stalled]), taken(during.ByOrigin[stalled]); now == then {
		t.Errorf("%s had all its messages when it stood still", stalled)
	}
	w.serve.stop()
}
