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

	// Faults are in force from the start, by name.
	Faults map[string]Fault

	// Listen is the IP address to bind, 127.0.0.1 by default. Host is the name in the addresses that clients are given;
	// by default it is Listen.
	Listen, Host string
	// Port is the first of nine in a row: the services in their order, then control; and ntfy as a tenth, if devices are
	// there. 0: any that are free.
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

// controlPort comes after the eight services that are always there, and Ntfy after it.
const controlPort = int(Ntfy)

func (s Service) port() int {
	if s == Ntfy {
		return controlPort + 1
	}
	return int(s)
}

// Simulator is the providers behind doors: each service on a port of its own, and the control API.
type Simulator struct {
	*Providers
	authority *authority
	endpoints [services]*endpoint // Ntfy's is nil when nobody has a device there
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
	p, err := newProviders(&o)
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority(p.world.derive, o.Now())
	if err != nil {
		return nil, fmt.Errorf("simulator: certificate authority: %w", err)
	}
	if p.receipts, err = openReceipts(o.Receipts, p.world); err != nil {
		return nil, err
	}
	p.connections = true
	if err := p.setFaults(o.Faults); err != nil {
		return nil, errors.Join(err, p.receipts.close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Simulator{Providers: p, authority: ca, host: o.Host, stop: cancel}
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
			return nil, fmt.Errorf("simulator: %w; choose another port, nine in a row are needed, ten with ntfy", err)
		}
		return l, nil
	}
	for id := range services {
		if id == Ntfy && o.Population.Mix.Ntfy == 0 {
			continue
		}
		l, err := listen(id.port())
		if err != nil {
			return err
		}
		e := &endpoint{sim: s, service: id, listener: l}
		s.move(id, "https://"+s.address(l))
		s.endpoints[id] = e
		if err := e.start(cert, o.Streams.of(id), &s.done); err != nil {
			return err
		}
	}
	if s.listener, err = listen(controlPort); err != nil {
		return err
	}
	s.startControl()
	s.done.Go(func() { s.flush(ctx) })
	return nil
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
func (s *Simulator) Address(svc Service) string { return s.URL(svc)[len("https://"):] }

// Addresses are all services' addresses by their names, and control's.
func (s *Simulator) Addresses() map[string]string {
	m := map[string]string{"control": s.address(s.listener)}
	for svc, e := range s.endpoints {
		if e != nil {
			m[Service(svc).String()] = s.Address(Service(svc))
		}
	}
	return m
}

// CA is the certificate that clients must trust, in PEM.
func (s *Simulator) CA() []byte { return s.authority.pem }
