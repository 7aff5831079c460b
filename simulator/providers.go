package simulator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Providers are the push providers: whom they know, what they verify, what ails them, and what they have taken. It has no
// socket: [Simulator] is this behind HTTP, and [Providers.Ask] is this without. It is safe for concurrent use.
type Providers struct {
	world    *world
	now      func() time.Time
	accepted func(ID) // nil: nobody asks
	services [services]provider
	origins  [services]string // by which services are reached: "https://" and the address
	faults   faults
	receipts *receipts
	// connections says that there are some, which a black hole or a drip can take.
	connections bool

	mu       sync.Mutex
	offences map[uint16]offence // guarded: what Chrome has against an app
}

// NewProviders makes providers that listen nowhere, at the addresses of the real ones. Of the options, those of ports,
// streams and files do not apply.
func NewProviders(o Options) (*Providers, error) {
	p, err := newProviders(&o)
	if err != nil {
		return nil, err
	}
	p.receipts = newReceipts(p.world)
	return p, p.setFaults(o.Faults)
}

func newProviders(o *Options) (*Providers, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	w, err := newWorld(o.Population)
	if err != nil {
		return nil, err
	}
	p := &Providers{world: w, now: o.Now, accepted: o.Accepted, offences: map[uint16]offence{}}
	for id := range services {
		p.move(id, "https://"+id.host())
	}
	return p, nil
}

// Fresh are the same providers, with the same apps and devices at the same addresses, before anybody asked them or a fault
// was set. It costs next to nothing; they have no connections and no file.
func (p *Providers) Fresh() *Providers {
	f := &Providers{world: p.world, now: p.now, accepted: p.accepted, offences: map[uint16]offence{}, receipts: newReceipts(p.world)}
	for svc, origin := range p.origins {
		f.move(Service(svc), origin)
	}
	return f
}

// move has a service reached at an origin.
func (p *Providers) move(svc Service, origin string) {
	p.origins[svc] = origin
	switch svc {
	case APNs, APNsSandbox:
		p.services[svc] = newAPNs(p.world, svc, p.now)
	case FCM:
		p.services[svc] = &fcm{world: p.world, now: p.now}
	case OAuth:
		p.services[svc] = &oauth{world: p.world, now: p.now, url: origin}
	default:
		p.services[svc] = newWebPush(p.world, svc, origin, p.now)
	}
}

// Ask puts a request to its provider and returns what becomes of it, after as long as faults make it wait. It needs no
// socket and takes time from Options.Now and from timers alone, so it runs in a testing/synctest bubble, where faults
// must be set in the same one. A context that ends is a client that leaves.
func (p *Providers) Ask(ctx context.Context, r *Request) Answer {
	pr := p.services[r.Service]
	c := &call{Request: r, app: -1}
	pr.identify(c)
	if c.known {
		p.receipts.asked(c.target)
	}
	a := p.answer(ctx, pr, c)
	if ctx.Err() != nil {
		a = Answer{Accepted: a.Accepted, ID: a.ID, Named: a.Named}
	}
	p.receipts.answered(r.Service, c.app, a.Status)
	return a
}

// answer takes a call through the faults that strike it, in the order of their names, to the provider.
func (p *Providers) answer(ctx context.Context, pr provider, c *call) (a Answer) {
	struck := p.faults.striking(c)
	if len(struck) == 0 {
		return p.judge(pr, c)
	}
	var ending FaultKind
	for _, f := range struck {
		f.alter(c)
	}
	for _, f := range struck {
		if f.AfterAccepting && a.Status == 0 {
			a = p.judge(pr, c)
		}
		instead, over := f.strike(ctx, p.now(), pr, c)
		if over {
			instead.Accepted, instead.ID, instead.Named = a.Accepted, a.ID, a.Named
			if instead.Status != 0 {
				instead.Ending = ending
			}
			return instead
		}
		if f.Kind == GoAway {
			ending = GoAway
		}
	}
	if a.Status == 0 {
		a = p.judge(pr, c)
	}
	a.Ending = ending
	return a
}

func (p *Providers) judge(pr provider, c *call) Answer {
	a := pr.judge(c)
	if a.Accepted {
		if p.accepted != nil && a.Named {
			p.accepted(a.ID)
		}
		p.receipts.accepted(a, c, time.Now())
	}
	return a
}

// URL is a service's origin: "https://" and its address.
func (p *Providers) URL(svc Service) string { return p.origins[svc] }

// App is an app's credentials.
func (p *Providers) App(name string) (*App, error) {
	for _, a := range p.world.apps {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("simulator: app %q is not simulated; there are %v", name, p.world.Apps)
}

// SetFault puts a fault in force under a name, in the place of one that has it.
func (p *Providers) SetFault(name string, f Fault) error {
	if name == "" {
		return errors.New("simulator: fault: it needs a name, to be lifted by")
	}
	if err := f.check(); err != nil {
		return err
	}
	if f.onConnections() && !p.connections {
		return fmt.Errorf("simulator: fault: %s takes connections, and there are none without sockets: use stall or latency", f.Kind)
	}
	aim, err := p.aim(&f)
	if err != nil {
		return err
	}
	if f.Kind == Disruptive {
		p.sentence(&f, uint16(aim.app))
	}
	if !p.faults.set(name, f, aim) {
		return errors.New("simulator: fault: the simulator is closed")
	}
	return nil
}

func (p *Providers) setFaults(all map[string]Fault) error {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := p.SetFault(name, all[name]); err != nil {
			return fmt.Errorf("%w (fault %s)", err, name)
		}
	}
	return nil
}

// Faults are those in force, by name, with how often each has struck.
func (p *Providers) Faults() map[string]FaultState { return p.faults.list() }

// FaultStruck is closed once the fault in force under that name has struck. It is nil when there is none.
func (p *Providers) FaultStruck(name string) <-chan struct{} { return p.faults.first(name) }

// ClearFault lifts one fault and says whether there was one.
func (p *Providers) ClearFault(name string) bool { return p.faults.clear(name) }

// ClearFaults lifts all faults.
func (p *Providers) ClearFaults() { p.faults.clearAll(false) }

// Summary is the account of all requests so far. It has written the receipts file out first.
func (p *Providers) Summary() (Summary, error) {
	if err := p.receipts.flush(); err != nil {
		return Summary{}, fmt.Errorf("simulator: receipts: %w", err)
	}
	return p.receipts.summary(), nil
}

// Received is how often a delivery was accepted, up to 255.
func (p *Providers) Received(id ID) int { return p.receipts.times(id) }

// EachReceipt calls f with every delivery accepted and how often, up to 255, until f fails.
func (p *Providers) EachReceipt(f func(id ID, times int) error) error { return p.receipts.each(f) }

// ResetReceipts forgets all receipts and answers, in the file too.
func (p *Providers) ResetReceipts() error {
	if err := p.receipts.reset(); err != nil {
		return fmt.Errorf("simulator: receipts: %w", err)
	}
	return nil
}
