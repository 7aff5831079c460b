package main

import (
	"strings"
	"testing"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// TestRepeatsNeedAReason: a delivery that a provider has twice is fine only where something that happened may repeat it.
func TestRepeatsNeedAReason(t *testing.T) {
	zero := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	accepted := func(s float64) word { return word{at(s), pb.Outcome_OUTCOME_ACCEPTED} }
	kill := event{kind: "SIGKILL", platform: "fcm", senders: true, start: at(100), end: at(103), moment: at(100)}
	for _, tt := range []struct {
		name     string
		receipts []time.Time
		words    []word
		sent     int
		events   []event
		fine     bool
	}{
		{"once", []time.Time{at(50)}, []word{accepted(50.2)}, 1, nil, true},
		{"twice for nothing", []time.Time{at(50), at(51)}, []word{accepted(51.2)}, 1, nil, false},
		{"in flight at a kill", []time.Time{at(100.01), at(105)}, []word{accepted(105.2)}, 1, []event{kill}, true},
		{"done and not committed at a kill", []time.Time{at(99.9), at(105)}, []word{accepted(105.2)}, 1, []event{kill}, true},
		{"committed before the kill", []time.Time{at(50), at(105)}, []word{accepted(50.2)}, 1, []event{kill}, false},
		{"thrice for one kill", []time.Time{at(99.9), at(105), at(106)}, []word{accepted(106.2)}, 1, []event{kill}, false},
		{"sent after the kill", []time.Time{at(104), at(105)}, []word{accepted(105.2)}, 1, []event{kill}, false},
		{"a kill of another platform's", []time.Time{at(99.9), at(105)}, []word{accepted(105.2)}, 1, []event{{
			kind: "SIGKILL", platform: "apns", senders: true, start: at(100), end: at(103), moment: at(100),
		}}, false},
		{"a broker away", []time.Time{at(101), at(108)}, []word{accepted(108.2)}, 1, []event{{
			kind: "broker SIGKILL", senders: true, start: at(100), end: at(107),
		}}, true},
		{"a stop in good order", []time.Time{at(99.9), at(105)}, []word{accepted(105.2)}, 1, []event{{
			kind: "SIGTERM", platform: "fcm", senders: true, start: at(100), end: at(103),
		}}, false},
		{"a stop while its provider stalled", []time.Time{at(99.9), at(105)}, []word{accepted(105.2)}, 1, []event{
			{kind: "SIGTERM", platform: "fcm", senders: true, start: at(100), end: at(103)},
			{kind: "provider", platform: "fcm", provider: true, start: at(97), end: at(101)},
		}, true},
		{"the answer was lost", []time.Time{at(50), at(60)}, []word{{at(50.2), pb.Outcome_OUTCOME_DEFERRED}, accepted(60.2)}, 1, nil, true},
		{"called for twice", []time.Time{at(50), at(60)}, []word{accepted(50.2), accepted(60.2)}, 2, nil, true},
	} {
		id := [16]byte{1}
		e := &evidence{
			receipts: map[[16]byte][]time.Time{id: tt.receipts}, words: map[[16]byte][]word{id: tt.words},
			platform: map[[16]byte]string{id: "fcm"}, sent: map[[16]byte]int{id: tt.sent}, run: map[[16]byte]string{id: "c"},
		}
		repeats, bound, unexplained := e.repeats(tt.events)
		if (len(unexplained) == 0) != tt.fine || repeats != len(tt.receipts)-1 || tt.fine && bound < repeats {
			t.Errorf("%s: %d repeats of %d possible, unexplained: %v", tt.name, repeats, bound, unexplained)
		}
	}
}

// TestBoundIsOfOneMoment: what an event may repeat is what was uncommitted at one moment of it, not all that passed.
func TestBoundIsOfOneMoment(t *testing.T) {
	zero := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	risks := []risk{{at(0), at(1)}, {at(2), at(5)}, {at(3), at(6)}, {at(5.5), at(7)}, {at(100), at(101)}}
	for _, tt := range []struct {
		name string
		v    event
		want int
	}{
		{"an outage", event{start: at(1.5), end: at(8)}, 2},
		{"nothing in flight", event{start: at(20), end: at(30)}, 0},
		{"a kill", event{start: at(1.5), end: at(50), moment: at(6.2)}, 1},
	} {
		if got := most(risks, tt.v); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestBrokersListenBehindTheirProxies(t *testing.T) {
	got := behind("node.id=1\nlisteners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\nadvertised.listeners=PLAINTEXT://127.0.0.1:1\n"+
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT\nx.client.port=1\n", "127.0.0.1:3", "127.0.0.1:4")
	for _, want := range []string{
		"listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,PROXIED://127.0.0.1:3\n",
		"advertised.listeners=PLAINTEXT://127.0.0.1:1,PROXIED://127.0.0.1:4\n",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT\nx.client.port=1\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// TestScheduleFollowsFromItsSeed: the same seed draws the same kills at the same points.
func TestScheduleFollowsFromItsSeed(t *testing.T) {
	draw := func(seed uint64) string {
		c := newChaos(&world{options: options{seed: seed}}, nil, t.Logf)
		var b strings.Builder
		for _, p := range c.points {
			b.WriteString(p.role + " " + p.point + "\n")
		}
		b.WriteString(c.between(0, time.Hour).String())
		return b.String()
	}
	one := draw(1)
	if again := draw(1); again != one {
		t.Error("two schedules of one seed differ")
	}
	if draw(2) == one {
		t.Error("two seeds have the same schedule")
	}
}
