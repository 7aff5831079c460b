package simulator

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Population is who the providers know: apps with their credentials, and devices. All of it follows from the seed, so
// that a million devices cost nothing to keep and two simulators of one seed are the same to their clients.
type Population struct {
	Seed    uint64
	Apps    []string // ["demo"] by default
	Devices int      // of each app

	// Mix weighs the platforms; 4:4:2 by default.
	Mix Mix

	// Gone and Misplaced are shares of the devices, from 0 to 1. A gone one answers 410 or UNREGISTERED. A misplaced one
	// is an APNs token of the other environment, an FCM token of another sender, or a subscription made with another
	// VAPID key, which ntfy does not mind. Faults do the same to devices while the providers run, and more.
	Gone, Misplaced float64
}

// Mix is how many devices of each platform there are in the sum of all. WebPush are those of the browsers' services, Ntfy
// those at a push server of somebody's own.
type Mix struct{ APNs, FCM, WebPush, Ntfy int }

var appName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (p *Population) complete() error {
	if len(p.Apps) == 0 {
		p.Apps = []string{"demo"}
	}
	if p.Mix == (Mix{}) {
		p.Mix = Mix{APNs: 4, FCM: 4, WebPush: 2}
	}
	seen := map[string]bool{}
	for _, a := range p.Apps {
		if !appName.MatchString(a) || seen[a] {
			return fmt.Errorf("simulator: app %q: a name must match %s and be given once", a, appName)
		}
		seen[a] = true
	}
	switch {
	case len(p.Apps) > 1000:
		return fmt.Errorf("simulator: %d apps: at most 1000", len(p.Apps))
	case p.Devices < 0 || p.Devices > 100_000_000:
		return fmt.Errorf("simulator: %d devices: from 0 to 100,000,000 an app", p.Devices)
	case p.Mix.APNs < 0 || p.Mix.FCM < 0 || p.Mix.WebPush < 0 || p.Mix.Ntfy < 0:
		return fmt.Errorf("simulator: mix %+v: weights are not negative", p.Mix)
	case p.Gone < 0 || p.Misplaced < 0 || p.Gone+p.Misplaced > 1:
		return fmt.Errorf("simulator: gone %g and misplaced %g: shares from 0 to 1, together at most 1", p.Gone, p.Misplaced)
	}
	return nil
}

// subscriptionKeys is how many key pairs all Web Push subscriptions share. Making one costs a point multiplication;
// a push to any of them costs the sender and the simulator the same as to a key of its own.
const subscriptionKeys = 256

// world is a population with its keys.
type world struct {
	Population
	*sealer
	derive deriver
	apps   []*App
	keys   [subscriptionKeys]func() subscriptionKey // made when first asked for
}

// subscriptionKey is a browser's.
type subscriptionKey struct {
	private *ecdh.PrivateKey
	p256dh  string // its public half, base64url
}

func newWorld(p Population) (*world, error) {
	d := newDeriver(p.Seed)
	w := &world{Population: p, sealer: newSealer(d), derive: d}
	for i := range w.keys {
		w.keys[i] = sync.OnceValue(func() subscriptionKey {
			k, err := d.p256("subscription", uint64(i)).ECDH()
			if err != nil {
				panic(err) // every P-256 key is good for ECDH
			}
			return subscriptionKey{k, base64.RawURLEncoding.EncodeToString(k.PublicKey().Bytes())}
		})
	}
	for i, name := range p.Apps {
		a, err := newApp(d, uint16(i), name)
		if err != nil {
			return nil, err
		}
		w.apps = append(w.apps, a)
	}
	return w, nil
}

// subscriptionKey is that of a subscription's browser.
func (w *world) subscriptionKey(t target) subscriptionKey { return w.keys[t.index%subscriptionKeys]() }

// app is the app a target belongs to, or nil when that is one of another population of the same seed.
func (w *world) app(t target) *App {
	if int(t.app) >= len(w.apps) {
		return nil
	}
	return w.apps[t.app]
}

// madeWith is the VAPID key that a subscription was made with.
func (w *world) madeWith(t target) string {
	if t.other {
		return w.apps[t.app].FormerVAPIDPublic
	}
	return w.apps[t.app].VAPIDPublic
}

// Fate is what a push to a device meets.
type Fate uint8

// A device's fates.
const (
	Healthy Fate = iota
	Gone
	Misplaced
)

var fates = [...]string{"healthy", "gone", "misplaced"}

func (f Fate) String() string { return fates[f] }

// MarshalText writes a fate's name.
func (f Fate) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads it.
func (f *Fate) UnmarshalText(b []byte) error {
	i := slices.Index(fates[:], string(b))
	if i < 0 {
		return fmt.Errorf("simulator: %q is no fate", b)
	}
	*f = Fate(i)
	return nil
}

// device is one of the population's. target is what its token says, service where the device's owner believes it to be.
type device struct {
	target
	service Service
	fate    Fate
	fid     bool // an FCM device known by its installation id
	lot     lot
}

// deviceIndex reads a device id: "d-" and its number.
func (w *world) deviceIndex(id string) (uint32, bool) {
	digits, ok := strings.CutPrefix(id, "d-")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && n < uint64(w.Devices)
}

// called is the device that an app calls by that id.
func (w *world) called(app, id string) (key, bool) {
	index, ok := w.deviceIndex(id)
	for i, name := range w.Apps {
		if name == app && ok {
			return key{uint16(i), index}, true
		}
	}
	return key{}, false
}

// device derives the i-th device of an app.
func (w *world) device(app uint16, i uint32) device {
	l := newLot(w.Seed, app, i)
	d := device{lot: l, target: target{app: app, index: i}}
	d.service = w.pickService(&d)
	d.target.service = d.service
	switch share := l.share(lotFate); {
	case share < w.Gone:
		d.fate, d.gone = Gone, true
	case share < w.Gone+w.Misplaced && d.service != Ntfy:
		d.fate = Misplaced
		if other, apns := otherEnvironment[d.service]; apns {
			d.target.service = other
		} else {
			d.other = true
		}
	}
	return d
}

// otherEnvironment is the one that an APNs token is not for.
var otherEnvironment = map[Service]Service{APNs: APNsSandbox, APNsSandbox: APNs}

func (w *world) pickService(d *device) Service {
	m := w.Mix
	switch n := d.lot.below(lotPlatform, m.APNs+m.FCM+m.WebPush+m.Ntfy); {
	case n < m.APNs:
		if d.lot.below(lotService, 20) == 0 {
			return APNsSandbox
		}
		return APNs
	case n < m.APNs+m.FCM:
		d.fid = d.lot.below(lotService, 5) == 0
		return FCM
	case n >= m.APNs+m.FCM+m.WebPush:
		return Ntfy
	}
	switch n := d.lot.below(lotService, 10); {
	case n < 5:
		return Chrome
	case n < 7:
		return Mozilla
	case n < 9:
		return Apple
	}
	return Windows
}

// lot is a device's source of everything that is drawn: one hash, from which each question takes an answer of its own.
type lot uint64

const (
	lotFate = iota
	lotPlatform
	lotService
	lotLocale
	lotName
	lotVersion
	lotTags
	lotLevel
	lotFault
)

func newLot(seed uint64, app uint16, i uint32) lot {
	return lot(mix(mix(seed) ^ uint64(app)<<32 ^ uint64(i)))
}

func (l lot) draw(question uint64) uint64 { return mix(uint64(l) + question) }

// below is from 0 to n-1; 0 when n is 0.
func (l lot) below(question uint64, n int) int {
	if n == 0 {
		return 0
	}
	return int(l.draw(question) % uint64(n))
}

// share is from 0 to below 1.
func (l lot) share(question uint64) float64 { return float64(l.draw(question)>>11) / (1 << 53) }

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
