package simulator

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// faultState is a fault in force, with what its kind remembers.
type faultState struct {
	Fault
	name   string
	aim    aim
	quota  quota
	struck atomic.Int64
	first  chan struct{} // closed when it has struck
	once   sync.Once     // closes first
	lifted chan struct{}
	timer  *time.Timer
}

func (f *faultState) matches(s Service) bool {
	return (f.Platform == "" || f.Platform == s.platform()) && (f.Origin == "" || f.Origin == s.String())
}

func (f *faultState) count() {
	f.struck.Add(1)
	f.once.Do(func() { close(f.first) })
}

// faults are those in force. Requests and connections read them without a lock.
type faults struct {
	mu     sync.Mutex
	byName map[string]*faultState // guarded
	over   bool                   // guarded: the simulator closes, and nothing may hold it up any more
	now    atomic.Pointer[[]*faultState]
}

// set puts a fault in force, in the place of one of that name, unless all is over.
func (fs *faults) set(name string, f Fault, a aim) bool {
	st := &faultState{Fault: f, name: name, aim: a, first: make(chan struct{}), lifted: make(chan struct{})}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.over {
		return false
	}
	if fs.byName == nil {
		fs.byName = map[string]*faultState{}
	}
	fs.drop(fs.byName[name])
	fs.byName[name] = st
	if f.For > 0 {
		st.timer = time.AfterFunc(time.Duration(f.For), func() { fs.lift(st) })
	}
	fs.publish()
	return true
}

func (fs *faults) lift(st *faultState) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byName[st.name] == st {
		fs.drop(st)
		fs.publish()
	}
}

func (fs *faults) clear(name string) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	st := fs.byName[name]
	fs.drop(st)
	fs.publish()
	return st != nil
}

// clearAll lifts all faults; end, for good.
func (fs *faults) clearAll(end bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.over = fs.over || end
	for _, st := range fs.byName {
		fs.drop(st)
	}
	fs.publish()
}

// drop is called with mu held.
func (fs *faults) drop(st *faultState) {
	if st == nil {
		return
	}
	delete(fs.byName, st.name)
	if st.timer != nil {
		st.timer.Stop()
	}
	close(st.lifted)
}

// publish is called with mu held. Names decide the order in which faults strike.
func (fs *faults) publish() {
	var all []*faultState
	for _, name := range slices.Sorted(maps.Keys(fs.byName)) {
		all = append(all, fs.byName[name])
	}
	fs.now.Store(&all)
}

// first is closed when the fault of that name has struck, or is nil.
func (fs *faults) first(name string) <-chan struct{} {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if st := fs.byName[name]; st != nil {
		return st.first
	}
	return nil
}

func (fs *faults) list() map[string]FaultState {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := map[string]FaultState{}
	for name, st := range fs.byName {
		out[name] = FaultState{Fault: st.Fault, Struck: st.struck.Load()}
	}
	return out
}

// striking draws the faults that strike a request.
func (fs *faults) striking(c *call) []*faultState {
	all := fs.now.Load()
	if all == nil {
		return nil
	}
	var out []*faultState
	for _, f := range *all {
		if f.onConnections() || !f.matches(c.Service) || !f.aim.hits(c) {
			continue
		}
		if f.Rate > 0 && rand.Float64() >= f.Rate {
			continue
		}
		out = append(out, f)
	}
	return out
}

// at are the names of the faults that are aimed at a device, in their order.
func (fs *faults) at(d device) (names []string) {
	all := fs.now.Load()
	if all == nil {
		return nil
	}
	c := &call{Request: &Request{Service: d.service}, app: int(d.app), target: d.target, known: true}
	for _, f := range *all {
		if f.aimed() && f.matches(d.service) && f.aim.hits(c) {
			names = append(names, f.name)
		}
	}
	return names
}

// onConnection is the black hole that a service's connections are in, or else the drip they are on, or nil.
func (fs *faults) onConnection(s Service) *faultState {
	all := fs.now.Load()
	if all == nil {
		return nil
	}
	var found *faultState
	for _, f := range *all {
		if f.onConnections() && f.matches(s) && (found == nil || f.Kind == BlackHole) {
			found = f
		}
	}
	return found
}
