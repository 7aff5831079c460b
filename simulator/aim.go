package simulator

import (
	"fmt"
	"strings"
)

// aim is which requests a fault strikes, as far as it goes by whose they are and whom they are for.
type aim struct {
	app         int     // -1: any
	some        bool    // of the targets, and not all requests
	from, until float64 // of the draw of each
	seed        uint64
	listed      map[key]bool
}

// key is a target of the population, whatever its token says.
type key struct {
	app   uint16
	index uint32
}

func (t target) key() key { return key{t.app, t.index} }

func (p *Providers) aim(f *Fault) (aim, error) {
	a := aim{app: -1, some: f.aimed(), from: f.From, until: f.From + f.Share, seed: f.Seed}
	if f.App != "" {
		app, err := p.App(f.App)
		if err != nil {
			return a, err
		}
		a.app = int(app.index)
	}
	if len(f.Targets) > 0 {
		a.listed = map[key]bool{}
	}
	for _, text := range f.Targets {
		keys := p.find(text, a.app)
		if len(keys) == 0 {
			return a, fmt.Errorf("simulator: fault: target %q is no device id, token, installation id or endpoint of the population's", text)
		}
		for _, k := range keys {
			a.listed[k] = true
		}
	}
	return a, nil
}

func (a *aim) hits(c *call) bool {
	if a.app >= 0 && a.app != c.app {
		return false
	}
	if !a.some {
		return true
	}
	if !c.known {
		return false
	}
	k := c.target.key()
	if a.listed[k] {
		return true
	}
	if a.until == 0 {
		return false
	}
	draw := newLot(a.seed, k.app, k.index).share(lotFault)
	return draw >= a.from && draw < a.until
}

// find reads what a target is called by. A device id is one of each app's, if app is -1.
func (p *Providers) find(text string, app int) []key {
	if index, ok := p.world.deviceIndex(text); ok {
		return p.everyApp(index, app)
	}
	for _, open := range []func(string) (target, bool){p.world.openAPNs, p.world.openFCM, p.world.openFID, p.openEndpoint} {
		if t, ok := open(text); ok {
			return []key{t.key()}
		}
	}
	return nil
}

func (p *Providers) everyApp(index uint32, app int) (keys []key) {
	for i := range p.world.apps {
		if app < 0 || app == i {
			keys = append(keys, key{uint16(i), index})
		}
	}
	return keys
}

func (p *Providers) openEndpoint(url string) (target, bool) {
	for svc, v := range vendors {
		if path, ok := strings.CutPrefix(url, p.URL(svc)); ok {
			if t, ok := v.open(p.world, path); ok {
				return t, true
			}
		}
	}
	return target{}, false
}
