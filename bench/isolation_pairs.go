package bench

import (
	"slices"
	"time"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/simulator"
)

// pair is one comparison.
type pair struct {
	name string
	// well are the services that are measured, sick those that the fault is about.
	well, sick []simulator.Service
	fault      simulator.Fault
	// apart puts the sick deliveries in an app of their own, which the fault is about.
	apart bool
	// targets is how many of the well service's devices are sick, and not measured: some of a destination, instead of all. half
	// is as many of them as are measured.
	targets int
	half    bool
	// about makes the sick deliveries' message, where it is the message that fails.
	about func(message.Message) message.Message
}

// inside says that the sick ones are of the same destination as those that are measured.
func (p pair) inside() bool { return p.targets > 0 || p.half }

var (
	origins   = []simulator.Service{simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows}
	platforms = []simulator.Service{simulator.APNs, simulator.FCM}
)

// sicknesses are what is done to the sick one.
var sicknesses = []struct {
	name  string
	fault simulator.Fault
}{
	{"blackhole", simulator.Fault{Kind: simulator.BlackHole}},
	{"latency", simulator.Fault{Kind: simulator.Latency, Delay: simulator.Duration(10 * time.Second)}},
	{"429", simulator.Fault{Kind: simulator.Status, Status: 429}},
	{"reset", simulator.Fault{Kind: simulator.Reset}},
}

// oneDevice and halves are what is done to one device, and to half of the devices of a service.
var (
	tooMany    = simulator.Fault{Kind: simulator.Status, Status: 429, RetryAfter: 3600}
	mismatched = simulator.Fault{Kind: simulator.Mismatch}
	hanging    = simulator.Fault{Kind: simulator.Latency, Delay: simulator.Duration(10 * time.Second)}

	oneDevice = []pair{
		{name: "device-429", well: origins[:1], fault: tooMany},
		{name: "device-mismatched", well: platforms[1:], fault: mismatched},
		{name: "device-latency", well: platforms[:1], fault: hanging},
	}
	halves = []pair{
		{name: "half-429", well: origins[:1], fault: tooMany},
		{name: "half-mismatched", well: origins[:1], fault: mismatched},
		{name: "half-project", well: platforms[1:], fault: mismatched},
		{name: "half-latency", well: platforms[:1], fault: hanging},
	}
)

// pairs are all comparisons; the first is of a thing with itself.
func (b Isolation) pairs() []pair {
	all := slices.Concat([]pair{{name: "noise", well: platforms}}, b.whole(), b.parts())
	if len(b.Pairs) > 0 {
		all = slices.DeleteFunc(all, func(p pair) bool { return p.name != "noise" && !slices.Contains(b.Pairs, p.name) })
	}
	return all
}

// whole are those in which a platform, an origin or an app is sick.
func (b Isolation) whole() (all []pair) {
	for _, s := range sicknesses {
		web, one, app := s.fault, s.fault, s.fault
		web.Platform = "webpush"
		all = append(all, pair{name: "webpush-" + s.name, well: platforms, sick: origins, fault: web})
		one.Origin = simulator.Mozilla.String()
		all = append(all, pair{
			name: "origin-" + s.name, sick: origins[1:2], fault: one,
			well: []simulator.Service{simulator.Chrome, simulator.Apple, simulator.Windows},
		})
		if s.name == "blackhole" {
			continue // takes connections, and one provider's host is the same for all apps
		}
		app.Platform = "fcm"
		all = append(all, pair{name: "app-" + s.name, well: platforms[1:], sick: platforms[1:], fault: app, apart: true})
	}
	return all
}

// parts are those in which some of a destination is sick, and the rest of the same is measured: a device, a message, half of
// the devices.
func (b Isolation) parts() (all []pair) {
	for _, p := range oneDevice {
		p.targets = 1
		all = append(all, p)
	}
	all = append(all, pair{name: "message-topic", well: platforms[:1], targets: messageTo, about: func(m message.Message) message.Message {
		m.APNs = &message.APNs{Topic: "com.example.another"} // not of this key's team: TopicDisallowed
		return m
	}})
	for _, p := range halves {
		p.half = true
		all = append(all, p)
	}
	return all
}
