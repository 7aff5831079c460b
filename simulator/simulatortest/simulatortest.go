// Package simulatortest makes populations whose devices answer differently, for tests of what sends to them. The one thing
// to know is [New].
//
// There is no socket in it, and time is the bubble's under testing/synctest: a test that makes its [World] in a bubble
// spends no real time on devices that are slow, silent or told to come back in an hour. Making one costs some 0.3 ms and 3 µs
// a device, so a model test may make one for each of many seeds.
package simulatortest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/belfry/belfry/simulator"
)

// Kind is how a device answers.
type Kind string

// The kinds. What each says is the service's own word (docs/providers.md).
const (
	Good       Kind = "good"
	Gone       Kind = "gone"       // its owner has removed the app, or taken the permission away
	Mismatched Kind = "mismatched" // of another bundle id, sender or VAPID key. ntfy takes it.
	Misplaced  Kind = "misplaced"  // of the other environment: at APNs alone, and elsewhere the same as Mismatched
	Renamed    Kind = "renamed"    // known by its other name since: at FCM alone, and elsewhere the same as Good
	Slow       Kind = "slow"       // takes the message, and says so after SlowAfter
	Silent     Kind = "silent"     // never answers
	Limited    Kind = "limited"    // 429
	Postponed  Kind = "postponed"  // 429 with Retry-After: PostponedBy
	Refusing   Kind = "refusing"   // 500, and at ntfy 507
)

const (
	// SlowAfter is longer than a vendor that is well takes.
	SlowAfter = 6 * time.Second
	// PostponedBy is what one subscription was told in the field, at which its whole service waited.
	PostponedBy = time.Hour
)

func (k Kind) fault(svc simulator.Service) simulator.Fault {
	switch k {
	case Gone:
		return simulator.Fault{Kind: simulator.Unregister}
	case Mismatched:
		return simulator.Fault{Kind: simulator.Mismatch}
	case Misplaced:
		return simulator.Fault{Kind: simulator.Mismatch, Reason: "BadDeviceToken"}
	case Renamed:
		return simulator.Fault{Kind: simulator.Rename}
	case Slow:
		return simulator.Fault{Kind: simulator.Latency, Delay: simulator.Duration(SlowAfter), AfterAccepting: true}
	case Silent:
		return simulator.Fault{Kind: simulator.Stall}
	case Limited:
		return simulator.Fault{Kind: simulator.Status, Status: 429}
	case Postponed:
		return simulator.Fault{Kind: simulator.Status, Status: 429, RetryAfter: int(PostponedBy.Seconds())}
	case Refusing:
		if svc == simulator.Ntfy {
			return simulator.Fault{Kind: simulator.Status, Status: 507}
		}
		return simulator.Fault{Kind: simulator.Status, Status: 500}
	}
	panic("simulatortest: no kind " + string(k))
}

// Options says who is in a World.
type Options struct {
	Service simulator.Service
	Devices int // at Service
	// Shares are how many of them are of each kind, from 0 to 1 and together at most 1; the others are Good. Seed says which:
	// the same one, the same devices.
	Shares map[Kind]float64
	Seed   uint64
}

// World is an app, its devices at one service, and the provider. It is safe for concurrent use.
type World struct {
	*simulator.Providers
	App     *simulator.App
	Devices []simulator.Device

	service simulator.Service
	kinds   map[string]Kind // by device id
	auth    authorizer
}

const app = "demo"

// New makes a World, until the test ends. All of a service and size are the same to a sender, but for their devices' kinds.
func New(t testing.TB, o Options) *World {
	t.Helper()
	known, err := populated(o.Service, o.Devices)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{Providers: known.Fresh(), App: known.app, service: o.Service, kinds: map[string]Kind{}}
	t.Cleanup(w.ClearFaults) // ends what waits in one
	from := 0.0
	for _, k := range slices.Sorted(maps.Keys(o.Shares)) {
		f := k.fault(o.Service)
		f.Share, f.From, f.Seed = o.Shares[k], from, o.Seed
		if f.Share == 0 {
			continue
		}
		if err := w.SetFault(string(k), f); err != nil {
			t.Fatal(err)
		}
		from += f.Share
	}
	for _, id := range known.ids {
		d, err := w.Device(app, id)
		if err != nil {
			t.Fatal(err)
		}
		w.kinds[id] = Good
		if len(d.Faults) > 0 {
			w.kinds[id] = Kind(d.Faults[0])
		}
		w.Devices = append(w.Devices, d)
	}
	return w
}

// Kind is a device's.
func (w *World) Kind(id string) Kind { return w.kinds[id] }

// Count is how many devices are of a kind.
func (w *World) Count(k Kind) (n int) {
	for _, of := range w.kinds {
		if of == k {
			n++
		}
	}
	return n
}

// Struck is how many requests have met a kind that is not Good.
func (w *World) Struck(k Kind) int64 { return w.Faults()[string(k)].Struck }

// Requests are those to a device so far, and how many of them had their message taken.
func (w *World) Requests(t testing.TB, id string) (asked, accepted int) {
	t.Helper()
	d, err := w.Device(app, id)
	if err != nil {
		t.Fatal(err)
	}
	return d.Asked, d.Accepted
}

// population is what all Worlds of a service and size have in common.
type population struct {
	*simulator.Providers
	app *simulator.App
	ids []string
}

type size struct {
	service simulator.Service
	devices int
}

var (
	mu          sync.Mutex
	populations = map[size]*population{} // guarded; a test asks for a few
)

// populated is the population of a service and size, made when first asked for: its keys cost more than all else.
func populated(svc simulator.Service, devices int) (*population, error) {
	mu.Lock()
	defer mu.Unlock()
	if p := populations[size{svc, devices}]; p != nil {
		return p, nil
	}
	// A browser's service has a tenth of its platform's devices at least, and APNs' sandbox a twentieth.
	all, err := simulator.NewProviders(simulator.Options{Population: simulator.Population{
		Apps: []string{app}, Devices: 40*devices + 400, Mix: only(svc),
	}})
	if err != nil {
		return nil, err
	}
	p := &population{Providers: all}
	if p.app, err = all.App(app); err != nil {
		return nil, err
	}
	enough := errors.New("there are enough")
	err = all.EachDevice(app, func(d simulator.Device) error {
		if d.Service == svc {
			p.ids = append(p.ids, d.ID)
		}
		if len(p.ids) == devices {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		return nil, fmt.Errorf("simulatortest: only %d of %d devices are at %s: %w", len(p.ids), devices, svc, err)
	}
	populations[size{svc, devices}] = p
	return p, nil
}

func only(svc simulator.Service) (m simulator.Mix) {
	switch svc {
	case simulator.APNs, simulator.APNsSandbox:
		m.APNs = 1
	case simulator.FCM:
		m.FCM = 1
	case simulator.Ntfy:
		m.Ntfy = 1
	default:
		m.WebPush = 1
	}
	return m
}
