package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// One device's refusal, or one message's, holds up nobody else's. Each of these began as a deployment in which it did.

// devicesAt are the simulator's devices at a service, in order.
func (w *world) devicesAt(svc simulator.Service) (at []simulator.Device) {
	w.t.Helper()
	resp, err := http.Get(w.control + "/devices/demo")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var d simulator.Device
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			w.t.Fatal(err)
		}
		if d.Service == svc {
			at = append(at, d)
		}
	}
	return at
}

// to is a campaign to these devices.
func to(id string, devices []simulator.Device, more string) string {
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = d.ID
	}
	list, _ := json.Marshal(ids)
	return fmt.Sprintf(`{"id": %q, "launch": true, "audience": {"devices": %s}, "message": {"title": "Hello", "ttl": "1h"%s}}`, id, list, more)
}

// message sends one to a device.
func (w *world) message(device, text string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"to": {"device": %q}, "message": {"title": %q, "ttl": "2h"}}`, device, text)
	if a := w.call("demo", http.MethodPost, "/v1/messages", body); a.status != http.StatusAccepted && a.status != http.StatusCreated {
		w.t.Fatalf("message: %d %s", a.status, a.body)
	}
}

// has waits until a device has n messages.
func (w *world) has(device string, n int) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("%s has %d messages", device, n), func() bool { return w.device(device).Accepted >= n })
}

func (w *world) device(id string) (d simulator.Device) {
	w.t.Helper()
	w.ask(http.MethodGet, "/devices/demo?id="+id, nil, &d)
	return d
}

// pausesNothing keeps auto-pause out of what is looked at.
func pausesNothing(yaml string) string {
	return strings.Replace(yaml, "    keys:", "    auto_pause: {percent: 100}\n    keys:", 1)
}

// books are a campaign's when all that is meant to end has.
func (w *world) books(id string, accepted, others int) (p producer.Progress) {
	w.t.Helper()
	until(w.t, fmt.Sprintf("campaign %s has %d accepted and %d others", id, accepted, others), func() (ok bool) {
		p, ok = w.progress("demo", id)
		return ok && int(p.Accepted) == accepted && int(p.Unregistered+p.Rejected) == others
	})
	return p
}

// A device with a bundle of its own that the key may not send to: that one ends, the others' messages are not held up by it.
func TestADevicesOwnTopicIsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 200})
	w.start()
	w.register("demo")
	all := w.devicesAt(simulator.APNs)
	others := all[:20]
	put := fmt.Sprintf(`{"apns": {"token": %q, "topic": "com.example.other.dev"}}`, strings.Repeat("ab", 32))
	if a := w.call("demo", http.MethodPut, "/v1/devices/odd", put); a.status >= 300 {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	until(t, "it is registered", func() bool { return w.call("demo", http.MethodGet, "/v1/devices/odd", "").status == http.StatusOK })
	w.message("odd", "for nobody")
	for _, d := range others {
		w.message(d.ID, "for you")
	}
	for _, d := range others {
		w.has(d.ID, 1)
	}
	w.campaign("demo", `{"id": "c1", "launch": true, "audience": {"devices": ["odd"]}, "message": {"title": "x"}}`)
	w.books("c1", 0, 1)
	if log := w.serve.log.String(); strings.Contains(log, "destination is stopped") {
		t.Errorf("the destination was stopped for it:\n%s", log)
	}
}

// A campaign whose topic is another app's ends by itself, and is paused; one that is right goes on beside it.
func TestAMessagesOwnTopicIsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 3000})
	w.start()
	w.register("demo")
	all := w.devicesAt(simulator.APNs)
	wrong, right := all[:500], all[500:900]
	w.campaign("demo", to("wrong", wrong, `, "apns": {"topic": "com.other.app"}`))
	w.campaign("demo", to("right", right, ""))
	if p := w.ended("demo", "right"); int(p.Accepted) != len(right) {
		t.Errorf("the right one: %+v", p)
	}
	// Auto-pause may be faster than its last delivery, or not.
	until(t, "the wrong one is paused by itself, or over", func() bool {
		p, ok := w.progress("demo", "wrong")
		return ok && (p.State == "paused" || p.Pending == 0) && p.Rejected >= 100 && p.Accepted == 0
	})
}

// Of one push service's subscriptions half are dead, and it says 507 for ever. A campaign to the others is done while those
// still wait.
func TestDeadSubscriptionsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 4000})
	w.start()
	w.register("demo")
	all := w.devicesAt(simulator.Mozilla)[:120]
	dead, living := all[:60], all[60:]
	w.fault("dead", simulator.Fault{Kind: simulator.Status, Status: 507, Targets: ids(dead)})
	w.campaign("demo", to("first", all, ""))
	w.books("first", 60, 0)
	w.campaign("demo", to("second", living, ""))
	if p := w.ended("demo", "second"); p.Accepted != 60 {
		t.Errorf("the second: %+v", p)
	}
	if p, ok := w.progress("demo", "first"); ok && p.Pending != 60 {
		t.Errorf("the first, to the dead too: %+v", p)
	}
	w.lift("dead")
}

// One subscription is told to come back in an hour. Others of its service are not.
func TestRetryAfterBindsWhomItWasSaidTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 400})
	w.start()
	w.register("demo")
	all := w.devicesAt(simulator.Chrome)
	w.fault("busy", simulator.Fault{Kind: simulator.Status, Status: 429, RetryAfter: 3600, Targets: ids(all[:1])})
	w.message(all[0].ID, "later")
	until(t, "it was asked", func() bool { return w.struck("busy") == 1 })
	for _, d := range all[1:11] {
		w.message(d.ID, "now")
	}
	for _, d := range all[1:11] {
		w.has(d.ID, 1)
	}
	if n := w.struck("busy"); n != 1 {
		t.Errorf("it was asked %d times within its hour", n)
	}
}

// Nearly all tokens are another project's, or all subscriptions but a few were made with another key. Those that are right have
// their messages; the others end by their own rule.
func TestMostTargetsAreAnothers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		service simulator.Service
		n       int
		outcome func(producer.Progress) uint64
	}{
		{simulator.FCM, 400, func(p producer.Progress) uint64 { return p.Rejected }},
		{simulator.Apple, 100, func(p producer.Progress) uint64 { return p.Unregistered }},
		{simulator.APNs, 400, func(p producer.Progress) uint64 { return p.Rejected }},
	} {
		t.Run(tt.service.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{devices: 3000, edit: pausesNothing})
			w.start()
			w.register("demo")
			all := w.devicesAt(tt.service)[:tt.n]
			right := tt.n / 20
			w.fault("others", simulator.Fault{Kind: simulator.Mismatch, Targets: ids(all[right:])})
			w.campaign("demo", to("c1", all, ""))
			until(t, "the right ones have it", func() bool {
				p, ok := w.progress("demo", "c1")
				return ok && int(p.Accepted) == right
			})
			// What was refused after the last right one waits until another passes.
			last, sent := w.devicesAt(tt.service)[tt.n].ID, 0
			var p producer.Progress
			until(t, "the others have ended", func() (ok bool) {
				if w.device(last).Accepted == sent {
					w.message(last, "and on")
					sent++
				}
				p, ok = w.progress("demo", "c1")
				return ok && p.Pending == 0
			})
			if got := tt.outcome(p); int(got) != tt.n-right {
				t.Errorf("%+v", p)
			}
			w.lift("others")
		})
	}
}

func ids(devices []simulator.Device) []string {
	all := make([]string, len(devices))
	for i, d := range devices {
		all[i] = d.ID
	}
	return all
}

// A push service takes nothing, and is all that its lane has ever been asked for. A campaign to another's devices alone is done
// meanwhile, in seconds; the first one's go when the service takes them.
func TestASickVendorHoldsNoOthersDevicesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 3000})
	w.start()
	w.register("demo")
	sick, well := w.devicesAt(simulator.Mozilla), w.devicesAt(simulator.Chrome)
	w.fault("ill", simulator.Fault{Kind: simulator.Status, Status: 503, Origin: "mozilla"})
	w.campaign("demo", to("first", sick, ""))
	until(t, "the service is found ill", func() bool { return strings.Contains(w.serve.log.String(), "destination waits") })
	began := time.Now()
	w.campaign("demo", to("second", well, ""))
	if p := w.ended("demo", "second"); int(p.Accepted) != len(well) {
		t.Errorf("the second: %+v", p)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the second took %v", took)
	}
	w.lift("ill")
	if p := w.ended("demo", "first"); int(p.Accepted) != len(sick) {
		t.Errorf("the first: %+v", p)
	}
}
