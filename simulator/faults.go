package simulator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// FaultKind is what a fault does.
type FaultKind string

// The kinds. Those from BlackHole on act on connections, the others on requests.
const (
	Latency     FaultKind = "latency"     // answer after Delay, and up to Jitter more
	Stall       FaultKind = "stall"       // answer when lifted
	Status      FaultKind = "status"      // answer Status
	Credentials FaultKind = "credentials" // refuse the app's credentials, as this provider does
	Quota       FaultKind = "quota"       // take PerSecond, with Burst, and throttle the rest
	Reset       FaultKind = "reset"       // RST_STREAM
	GoAway      FaultKind = "goaway"      // answer, with a GOAWAY: streams begun after it are not seen
	Cut         FaultKind = "close"       // close the connection, whatever is in flight on it
	BlackHole   FaultKind = "blackhole"   // accept connections, read and write no byte
	Drip        FaultKind = "drip"        // write PerSecond bytes a second
)

var kinds = []FaultKind{Latency, Stall, Status, Credentials, Quota, Reset, GoAway, Cut, BlackHole, Drip}

// Duration is a time.Duration, in JSON "1m30s".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Fault is a sickness of a provider. It strikes the requests that match Platform, Origin and App; an empty one matches
// all. Origin is a service's name. The token server is a platform of its own, "oauth".
type Fault struct {
	Kind     FaultKind `json:"kind"`
	Platform string    `json:"platform,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	App      string    `json:"app,omitempty"`
	// Rate is the share of the requests that it strikes, from above 0 to 1. 0 is all.
	Rate float64 `json:"rate,omitempty"`
	// For lifts it after that long. 0: when it is cleared.
	For Duration `json:"for,omitempty"`
	// AfterAccepting takes the message, with a receipt, before the fault strikes the answer: for the sender it is unknown.
	AfterAccepting bool `json:"after_accepting,omitempty"`

	Delay      Duration `json:"delay,omitempty"`
	Jitter     Duration `json:"jitter,omitempty"`
	Code       string   `json:"code,omitempty"` // of a reset, by its name in RFC 9113 section 7; INTERNAL_ERROR by default
	Status     int      `json:"status,omitempty"`
	Reason     string   `json:"reason,omitempty"`      // the provider's word; by default the status's usual one
	RetryAfter int      `json:"retry_after,omitempty"` // seconds
	Timestamp  int64    `json:"timestamp,omitempty"`   // of an APNs 410, Unix ms; now by default
	PerSecond  float64  `json:"per_second,omitempty"`
	Burst      int      `json:"burst,omitempty"` // 1 by default
}

// FaultState is a fault in force.
type FaultState struct {
	Fault
	// Struck is how many requests, or reads and writes of a connection, it has struck. What a quota lets through it has not.
	Struck int64 `json:"struck"`
}

func (f *Fault) onConnections() bool { return f.Kind == BlackHole || f.Kind == Drip }

func (f *Fault) check() error {
	var wrong []string
	say := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	say(!slices.Contains(kinds, f.Kind), "kind %q is none of %v", f.Kind, kinds)
	say(f.Platform != "" && !slices.Contains([]string{"apns", "fcm", "oauth", "webpush"}, f.Platform),
		"platform %q is none of apns, fcm, oauth, webpush", f.Platform)
	say(f.Origin != "" && !slices.Contains(serviceNames[:], f.Origin), "origin %q is none of %v", f.Origin, serviceNames)
	say(f.Rate < 0 || f.Rate > 1, "rate %g is not from 0 to 1", f.Rate)
	say(f.For < 0 || f.Delay < 0 || f.Jitter < 0 || f.RetryAfter < 0 || f.Burst < 0, "a time or burst is negative")
	say(f.Kind == Latency && f.Delay+f.Jitter == 0, "latency needs a delay or a jitter")
	say(f.Kind == Status && (f.Status < 300 || f.Status > 599), "status %d is not from 300 to 599", f.Status)
	if _, known := resetCodes[f.Code]; f.Code != "" {
		say(f.Kind != Reset || !known, "code %q: a reset has one, and by a name of RFC 9113's, as REFUSED_STREAM", f.Code)
		say(f.Code == http2.ErrCodeRefusedStream.String() && f.AfterAccepting, "code REFUSED_STREAM says that nothing was accepted")
	}
	say((f.Kind == Quota || f.Kind == Drip) && f.PerSecond <= 0, "%s needs a per_second above 0", f.Kind)
	say(f.onConnections() && f.App != "", "%s takes whole connections, which apps may share: use stall or latency for one app", f.Kind)
	say(f.onConnections() && f.Rate != 0, "%s takes all connections: it has no rate", f.Kind)
	say(f.onConnections() && f.AfterAccepting, "%s acts before a request is read: after_accepting does not apply", f.Kind)
	if wrong != nil {
		return fmt.Errorf("simulator: fault: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// faultState is a fault in force, with what its kind remembers.
type faultState struct {
	Fault
	name   string
	app    int // -1: any
	struck atomic.Int64
	first  chan struct{} // closed when it has struck
	once   sync.Once     // closes first
	lifted chan struct{}
	timer  *time.Timer

	mu     sync.Mutex // guards the quota's bucket
	tokens float64
	last   time.Time
}

func (f *faultState) matches(s Service) bool {
	return (f.Platform == "" || f.Platform == s.platform()) && (f.Origin == "" || f.Origin == s.String())
}

// strike does to a request what the fault does. It returns false when the request gets no answer, and else an answer
// to give instead of the provider's, or one of status 0 whose fields are added to the provider's.
func (f *faultState) strike(r *http.Request, p provider) (answer, bool) {
	if f.Kind == Quota && f.take(time.Now()) {
		return answer{}, true
	}
	f.count()
	switch f.Kind {
	case Latency:
		d := time.Duration(f.Delay)
		if f.Jitter > 0 {
			d += rand.N(time.Duration(f.Jitter))
		}
		t := time.NewTimer(d)
		defer t.Stop()
		return answer{}, f.wait(r, t.C)
	case Stall:
		return answer{}, f.wait(r, nil)
	case Status:
		return p.refuse(&f.Fault, f.Status), true
	case Credentials:
		return p.refuse(&f.Fault, http.StatusForbidden), true
	case Quota:
		return p.refuse(&f.Fault, http.StatusTooManyRequests), true
	case GoAway:
		// net/http turns this into a GOAWAY that names the last stream it has seen.
		return answer{fields: []field{{"Connection", "close"}}}, true
	case Reset:
		r.Context().Value(connKey{}).(*conn).code.Store(uint32(resetCodes[f.Code]))
	case Cut:
		r.Context().Value(connKey{}).(*conn).cut()
	}
	return answer{}, false
}

func (f *faultState) count() {
	f.struck.Add(1)
	f.once.Do(func() { close(f.first) })
}

// wait is over when the fault is lifted or t fires, and false when the client left first.
func (f *faultState) wait(r *http.Request, t <-chan time.Time) bool {
	select {
	case <-f.lifted:
	case <-t:
	case <-r.Context().Done():
	}
	return r.Context().Err() == nil
}

func (f *faultState) take(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	full := float64(max(f.Burst, 1))
	f.tokens = min(full, f.tokens+now.Sub(f.last).Seconds()*f.PerSecond)
	f.last = now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

// faults are those in force. Requests and connections read them without a lock.
type faults struct {
	mu     sync.Mutex
	byName map[string]*faultState // guarded
	over   bool                   // guarded: the simulator closes, and nothing may hold it up any more
	now    atomic.Pointer[[]*faultState]
}

// set puts a fault in force, in the place of one of that name, unless all is over.
func (fs *faults) set(name string, f Fault, app int) bool {
	st := &faultState{
		Fault: f, name: name, app: app, first: make(chan struct{}), lifted: make(chan struct{}),
		tokens: float64(max(f.Burst, 1)), last: time.Now(),
	}
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
func (fs *faults) striking(s Service, app int) []*faultState {
	all := fs.now.Load()
	if all == nil {
		return nil
	}
	var out []*faultState
	for _, f := range *all {
		if f.onConnections() || !f.matches(s) || f.app >= 0 && f.app != app {
			continue
		}
		if f.Rate > 0 && rand.Float64() >= f.Rate {
			continue
		}
		out = append(out, f)
	}
	return out
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

// retryAfter is the fault's Retry-After, if it has one.
func (f *Fault) retryAfter(fields []field) []field {
	if f.RetryAfter == 0 {
		return fields
	}
	return append(fields, field{"Retry-After", strconv.Itoa(f.RetryAfter)})
}
