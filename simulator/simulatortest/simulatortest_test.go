package simulatortest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/simulator"
)

var all = map[Kind]float64{
	Gone: 0.1, Mismatched: 0.1, Misplaced: 0.1, Renamed: 0.1, Slow: 0.1, Silent: 0.1, Limited: 0.1, Postponed: 0.1, Refusing: 0.1,
}

// what each kind says, by service; "" is nothing.
var words = map[simulator.Service]map[Kind]string{
	simulator.APNs: {
		Good: "200", Gone: "410 Unregistered", Mismatched: "400 DeviceTokenNotForTopic", Misplaced: "400 BadDeviceToken", Renamed: "200", Slow: "200",
		Limited: "429 TooManyRequests", Postponed: "429", Refusing: "500 InternalServerError",
	},
	simulator.APNsSandbox: {Good: "200", Misplaced: "400 BadDeviceToken"},
	simulator.FCM: {
		Good: "200", Gone: "404 UNREGISTERED", Mismatched: "403 SENDER_ID_MISMATCH", Misplaced: "403 SENDER_ID_MISMATCH", Renamed: "404 UNREGISTERED",
		Slow: "200", Limited: "429 QUOTA_EXCEEDED", Postponed: "429", Refusing: "500 INTERNAL",
	},
	simulator.Chrome:  {Good: "201", Gone: "410", Mismatched: "403", Renamed: "201", Limited: "429", Refusing: "500"},
	simulator.Mozilla: {Good: "201", Gone: `410 "errno":106`, Mismatched: `401 "errno":109`, Limited: "429", Refusing: "500"},
	simulator.Apple:   {Good: "201", Gone: "410 Unregistered", Mismatched: "400 VapidPkHashMismatch", Limited: "429", Refusing: "500"},
	simulator.Windows: {Good: "201", Gone: "410", Mismatched: "403", Limited: "429", Refusing: "500"},
	simulator.Ntfy:    {Good: "200", Gone: "507 50701", Mismatched: "200", Limited: "429 42901", Refusing: "507 50701"},
}

// Each kind answers as it should, in virtual time, and a test can ask which device is which and what it got.
func TestKinds(t *testing.T) {
	for svc, said := range words {
		t.Run(svc.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(t, Options{Service: svc, Devices: 120, Shares: all, Seed: 3})
				begin := time.Now()
				for _, d := range w.Devices {
					kind := w.Kind(d.ID)
					want, known := said[kind]
					if !known {
						continue
					}
					status, word, _ := strings.Cut(want, " ")
					asked := time.Now()
					a := w.Ask(t.Context(), t, d, simulator.ID{15: 1})
					if fmt.Sprint(a.Status) != status || !strings.Contains(string(a.Body), word) {
						t.Errorf("%s: %d %s, want %s", kind, a.Status, a.Body, want)
					}
					if took := time.Since(asked); took != map[Kind]time.Duration{Slow: SlowAfter}[kind] {
						t.Errorf("%s took %v", kind, took)
					}
					if after := a.Header().Get("Retry-After"); (after == "3600") != (kind == Postponed) {
						t.Errorf("%s: Retry-After %q", kind, after)
					}
					good := status[0] == '2'
					if n, taken := w.Requests(t, d.ID); n != 1 || (taken == 1) != good {
						t.Errorf("%s: %d requests, %d taken", kind, n, taken)
					}
				}
				for kind := range all {
					if _, known := said[kind]; known && w.Struck(kind) != int64(w.Count(kind)) {
						t.Errorf("%d of %d that are %s were struck", w.Struck(kind), w.Count(kind), kind)
					}
				}
				if d := time.Since(begin); d > time.Hour {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

func TestSilentNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, Options{Service: simulator.Mozilla, Devices: 1, Shares: map[Kind]float64{Silent: 1}})
		answered := make(chan simulator.Answer)
		go func() { answered <- w.Ask(t.Context(), t, w.Devices[0], simulator.ID{}) }()
		select {
		case a := <-answered:
			t.Errorf("%+v", a)
		case <-time.After(11 * time.Hour): // its Authorization is good for twelve
		}
		w.ClearFaults()
		if a := <-answered; a.Status != 201 {
			t.Errorf("lifted: %d", a.Status)
		}
	})
}

// Shares are those asked for, over many seeds, and the same for the same one.
func TestShares(t *testing.T) {
	const seeds, devices = 50, 200
	gone := 0
	for seed := range uint64(seeds) {
		o := Options{Service: simulator.FCM, Devices: devices, Shares: map[Kind]float64{Gone: 0.01, Mismatched: 0.95}, Seed: seed}
		w, again := New(t, o), New(t, o)
		gone += w.Count(Gone)
		if w.Count(Gone)+w.Count(Mismatched)+w.Count(Good) != devices {
			t.Fatalf("%d gone, %d mismatched, %d good", w.Count(Gone), w.Count(Mismatched), w.Count(Good))
		}
		for _, d := range w.Devices {
			if w.Kind(d.ID) != again.Kind(d.ID) {
				t.Fatalf("seed %d: %s changed", seed, d.ID)
			}
		}
	}
	if gone < 60 || gone > 140 {
		t.Errorf("%d of %d are gone, want about 100", gone, seeds*devices)
	}
}

// What one World has seen, another has not.
func TestWorldsAreApart(t *testing.T) {
	o := Options{Service: simulator.APNs, Devices: 5}
	w, other := New(t, o), New(t, o)
	if err := w.SetFault("ill", simulator.Fault{Kind: simulator.Status, Status: 503}); err != nil {
		t.Fatal(err)
	}
	d := w.Devices[0]
	if a, b := w.Ask(t.Context(), t, d, simulator.ID{}), other.Ask(t.Context(), t, d, simulator.ID{}); a.Status != 503 || b.Status != 200 {
		t.Errorf("%d and %d", a.Status, b.Status)
	}
	if n, _ := other.Requests(t, d.ID); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// BenchmarkNew is what a seed of a model test costs before it asks anybody.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(b, Options{Service: simulator.Mozilla, Devices: 200, Shares: map[Kind]float64{Gone: 0.3, Limited: 0.3}})
	}
}

func BenchmarkAsk(b *testing.B) {
	for _, svc := range []simulator.Service{simulator.APNs, simulator.FCM, simulator.Mozilla} {
		b.Run(svc.String(), func(b *testing.B) {
			w := New(b, Options{Service: svc, Devices: 1})
			for b.Loop() {
				if a := w.Ask(b.Context(), b, w.Devices[0], simulator.ID{15: 1}); a.Status/100 != 2 {
					b.Fatal(a.Status)
				}
			}
		})
	}
}
