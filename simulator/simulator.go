package simulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Options says what to simulate and where.
type Options struct {
	Population Population

	// Listen is the IP address to bind, 127.0.0.1 by default. Host is the name in the addresses that clients are given;
	// by default it is Listen.
	Listen, Host string
	// Port is the first of nine in a row: the services in their order, then control. 0: any that are free.
	Port int

	// Streams are how many a connection may have open at once: 1000, 100 and 250 by default.
	Streams Streams

	// Receipts is a file that accepted deliveries are appended to, at most 100 ms late; what it holds already is counted.
	// Empty: they are kept in memory only.
	Receipts string

	// Now is the providers' clock, by which they judge tokens and say since when a device is gone. nil: time.Now. Receipts
	// have the true time in any case.
	Now func() time.Time

	// Accepted, if set, is told of every delivery accepted, at that moment and from many goroutines: it must return soon.
	Accepted func(ID)
}

// Streams are each platform's SETTINGS_MAX_CONCURRENT_STREAMS.
type Streams struct{ APNs, FCM, WebPush int }

func (s Streams) of(svc Service) int {
	switch svc.platform() {
	case "apns":
		return s.APNs
	case "webpush":
		return s.WebPush
	}
	return s.FCM
}

func (o *Options) complete() error {
	if o.Listen == "" {
		o.Listen = "127.0.0.1"
	}
	if o.Host == "" {
		o.Host = o.Listen
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if net.ParseIP(o.Listen) == nil {
		return fmt.Errorf("simulator: listen %q: not an IP address", o.Listen)
	}
	if o.Port < 0 || o.Port > 65535-int(services) {
		return fmt.Errorf("simulator: port %d: from 0 to %d", o.Port, 65535-int(services))
	}
	for n, by := range map[*int]int{&o.Streams.APNs: 1000, &o.Streams.FCM: 100, &o.Streams.WebPush: 250} {
		if *n < 0 {
			return fmt.Errorf("simulator: streams %d: not negative", *n)
		}
		if *n == 0 {
			*n = by
		}
	}
	return o.Population.complete()
}

// Simulator is the providers, running.
type Simulator struct {
	world     *world
	authority *authority
	now       func() time.Time
	accepted  func(ID) // nil: nobody asks
	faults    faults
	receipts  *receipts
	endpoints [services]*endpoint
	control   *http.Server
	listener  net.Listener // of control
	host      string

	stop context.CancelFunc
	done sync.WaitGroup // servers and the receipts' flushing

	requests sync.RWMutex // held for reading by every request, so that Close can wait for them
	closed   bool         // guarded by requests
	closing  sync.Once
	closeErr error

	mu      sync.Mutex
	failure error // guarded: the first thing that broke
}

// Start binds the ports and serves until Close.
func Start(o Options) (*Simulator, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	w, err := newWorld(o.Population)
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority(w.derive, o.Now())
	if err != nil {
		return nil, fmt.Errorf("simulator: certificate authority: %w", err)
	}
	r, err := openReceipts(o.Receipts, len(w.apps))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Simulator{world: w, authority: ca, now: o.Now, accepted: o.Accepted, receipts: r, host: o.Host, stop: cancel}
	if err := s.serve(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Simulator) serve(ctx context.Context, o Options) error {
	cert, err := s.authority.issue(s.world.derive, o.Host, o.Now())
	if err != nil {
		return fmt.Errorf("simulator: server certificate: %w", err)
	}
	listen := func(i int) (net.Listener, error) {
		port := 0
		if o.Port != 0 {
			port = o.Port + i
		}
		l, err := net.Listen("tcp", net.JoinHostPort(o.Listen, strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("simulator: %w; choose another port, nine in a row are needed", err)
		}
		return l, nil
	}
	for id := range services {
		l, err := listen(int(id))
		if err != nil {
			return err
		}
		e := &endpoint{sim: s, service: id, listener: l}
		e.url = "https://" + s.address(l)
		e.provider = s.provider(e)
		s.endpoints[id] = e
		if err := e.start(cert, o.Streams.of(id), &s.done); err != nil {
			return err
		}
	}
	if s.listener, err = listen(int(services)); err != nil {
		return err
	}
	s.startControl()
	s.done.Go(func() { s.flush(ctx) })
	return nil
}

func (s *Simulator) provider(e *endpoint) provider {
	switch e.service {
	case APNs, APNsSandbox:
		return newAPNs(s.world, e.service, s.now)
	case FCM:
		return &fcm{world: s.world, now: s.now}
	case OAuth:
		return &oauth{world: s.world, now: s.now, url: e.url}
	}
	return newWebPush(s.world, e.service, e.url, s.now)
}

// flush writes receipts out every 100 ms: what a kill of the simulator itself can lose.
func (s *Simulator) flush(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := s.receipts.flush(); err != nil {
				s.fail(fmt.Errorf("simulator: receipts: %w", err))
				return
			}
		}
	}
}

// Close lifts every fault, ends every connection, and returns when nothing of the simulator runs.
func (s *Simulator) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.faults.clearAll(true)
		for _, e := range s.endpoints {
			if e != nil {
				_ = e.server.Close() // closes listeners and connections, whose errors concern nobody now
			}
		}
		if s.control != nil {
			_ = s.control.Close() // as above
		}
		s.requests.Lock()
		s.closed = true
		s.requests.Unlock()
		s.done.Wait()
		s.closeErr = errors.Join(s.Err(), s.receipts.close())
	})
	return s.closeErr
}

// Err is what broke while serving, if anything did.
func (s *Simulator) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *Simulator) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
	}
}

// enter begins a request, unless the simulator is closing.
func (s *Simulator) enter() bool {
	s.requests.RLock()
	if s.closed {
		s.requests.RUnlock()
		return false
	}
	return true
}

func (s *Simulator) leave() { s.requests.RUnlock() }

func (s *Simulator) address(l net.Listener) string {
	return net.JoinHostPort(s.host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// Address is where a service listens, host:port.
func (s *Simulator) Address(svc Service) string { return s.endpoints[svc].url[len("https://"):] }

// URL is a service's origin: "https://" and its address.
func (s *Simulator) URL(svc Service) string { return s.endpoints[svc].url }

// Addresses are all services' addresses by their names, and control's.
func (s *Simulator) Addresses() map[string]string {
	m := map[string]string{"control": s.address(s.listener)}
	for svc := range services {
		m[svc.String()] = s.Address(svc)
	}
	return m
}

// CA is the certificate that clients must trust, in PEM.
func (s *Simulator) CA() []byte { return s.authority.pem }

// App is an app's credentials.
func (s *Simulator) App(name string) (*App, error) {
	for _, a := range s.world.apps {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("simulator: app %q is not simulated; there are %v", name, s.world.Apps)
}

func (s *Simulator) appName(i int) string {
	if i < 0 || i >= len(s.world.apps) {
		return ""
	}
	return s.world.apps[i].Name
}

// SetFault puts a fault in force under a name, in the place of one that has it.
func (s *Simulator) SetFault(name string, f Fault) error {
	if name == "" {
		return errors.New("simulator: fault: it needs a name, to be lifted by")
	}
	if err := f.check(); err != nil {
		return err
	}
	app := -1
	if f.App != "" {
		a, err := s.App(f.App)
		if err != nil {
			return err
		}
		app = int(a.index)
	}
	if !s.faults.set(name, f, app) {
		return errors.New("simulator: fault: the simulator is closed")
	}
	return nil
}

// Faults are those in force, by name, with how often each has struck.
func (s *Simulator) Faults() map[string]FaultState { return s.faults.list() }

// FaultStruck is closed once the fault in force under that name has struck. It is nil when there is none.
func (s *Simulator) FaultStruck(name string) <-chan struct{} { return s.faults.first(name) }

// ClearFault lifts one fault and says whether there was one.
func (s *Simulator) ClearFault(name string) bool { return s.faults.clear(name) }

// ClearFaults lifts all faults.
func (s *Simulator) ClearFaults() { s.faults.clearAll(false) }

// Summary is the account of all requests so far. It has written the receipts file out first.
func (s *Simulator) Summary() (Summary, error) {
	if err := s.receipts.flush(); err != nil {
		return Summary{}, fmt.Errorf("simulator: receipts: %w", err)
	}
	return s.receipts.summary(s.world.apps), nil
}

// Received is how often a delivery was accepted, up to 255.
func (s *Simulator) Received(id ID) int { return s.receipts.times(id) }

// EachReceipt calls f with every delivery accepted and how often, up to 255, until f fails.
func (s *Simulator) EachReceipt(f func(id ID, times int) error) error { return s.receipts.each(f) }

// ResetReceipts forgets all receipts and answers, in the file too.
func (s *Simulator) ResetReceipts() error {
	if err := s.receipts.reset(); err != nil {
		return fmt.Errorf("simulator: receipts: %w", err)
	}
	return nil
}
