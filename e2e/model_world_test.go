package e2e

import (
	"context"
	"crypto/ecdh"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/fanout"
	"github.com/belfry/belfry/ledger"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/fcm"
	"github.com/belfry/belfry/senders/webpush"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/simulator/simulatortest"
	"github.com/belfry/belfry/stream"
)

// model is all of Belfry that lies between an accepted campaign and its devices, under a bubble's clock: fanout, senders and ledger
// as they are, on the embedded Kafka and Redis, without a network; the simulator's providers, without a wire.
type model struct {
	t         *testing.T
	network   *kfake.VirtualNetwork
	cluster   *kfake.Cluster
	kafka     *stream.Kafka
	client    *kgo.Client
	redis     *registry.Redis
	registry  *registry.Registry
	providers *simulator.Providers
	creds     *credentials
	refused   *refusals
	roles     map[string]*role
	// noise draws what a seed does not: how long answers take.
	noiseMu sync.Mutex
	noise   *rand.Rand

	mu       sync.Mutex // guards what follows
	accepted map[[16]byte]time.Time
	away     bool           // Kafka
	dying    []<-chan error // of killed processes
	conns    map[net.Conn]bool
}

// place is an app's devices at a service.
type place struct {
	app     string
	service simulator.Service
}

func (p place) platform() pb.Platform {
	switch {
	case p.service <= simulator.APNsSandbox:
		return pb.Platform_PLATFORM_APNS
	case p.service == simulator.FCM:
		return pb.Platform_PLATFORM_FCM
	}
	return pb.Platform_PLATFORM_WEBPUSH
}

var (
	modelApps     = []string{"shop", "news"}
	modelBrowsers = []simulator.Service{simulator.Chrome, simulator.Mozilla} // Chrome's is at FCM's address
	modelServices = append([]simulator.Service{simulator.APNs, simulator.FCM}, modelBrowsers...)
)

// perPlace is how many devices each place has.
const perPlace = 40

// credentials are what all seeds have in common, for making them costs more than a seed.
type credentials struct {
	providers *simulator.Providers
	apps      map[string]*simulator.App
	devices   map[place][]simulator.Device
	records   []*pb.Device

	mu   sync.Mutex // guards auth
	auth map[place]string
}

var modelCredentials = sync.OnceValues(func() (*credentials, error) {
	all, err := simulator.NewProviders(simulator.Options{Population: simulator.Population{Seed: 1, Apps: modelApps, Devices: 2000}})
	if err != nil {
		return nil, err
	}
	c := &credentials{providers: all, apps: map[string]*simulator.App{}, devices: map[place][]simulator.Device{}, auth: map[place]string{}}
	for _, app := range modelApps {
		if c.apps[app], err = all.App(app); err != nil {
			return nil, err
		}
		err := all.EachDevice(app, func(d simulator.Device) error {
			at := place{app, d.Service}
			if slices.Contains(modelServices, d.Service) && len(c.devices[at]) < perPlace {
				c.devices[at] = append(c.devices[at], d)
				c.records = append(c.records, modelDevice(d))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
})

// modelDevice is a device as it is registered.
func modelDevice(d simulator.Device) *pb.Device {
	out := &pb.Device{App: d.App, Id: d.ID, Platform: place{service: d.Service}.platform(), RegisteredAt: 1, Target: &pb.Target{}}
	switch out.Platform {
	case pb.Platform_PLATFORM_APNS:
		token, err := hex.DecodeString(d.Token)
		if err != nil {
			panic(err)
		}
		out.Target.Kind = &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token, Environment: pb.Environment_ENVIRONMENT_PRODUCTION}}
	case pb.Platform_PLATFORM_FCM:
		out.Target.Kind = &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: d.Token, Fid: d.FID}}
	default:
		// Nobody decrypts what is sent here: any key will do.
		out.Target.Kind = &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: d.Endpoint, P256Dh: modelKey(), Auth: make([]byte, 16)}}
	}
	return out
}

// provider is a platform's own with the credentials of some apps.
func (c *credentials) provider(p pb.Platform, apps ...string) (senders.Provider, error) {
	log := slog.New(slog.DiscardHandler)
	as, fs, ws := map[string]apns.Config{}, map[string]fcm.Config{}, map[string]webpush.Config{}
	for _, name := range apps {
		a := c.apps[name]
		account, err := c.providers.ServiceAccount(a)
		if err != nil {
			return nil, err
		}
		var hosts []string
		for _, s := range modelBrowsers {
			hosts = append(hosts, strings.TrimPrefix(c.providers.URL(s), "https://"))
		}
		as[name] = apns.Config{Key: []byte(a.APNsKey), KeyID: a.KeyID, TeamID: a.TeamID, Topic: a.Topic}
		fs[name] = fcm.Config{ServiceAccount: account}
		ws[name] = webpush.Config{PublicKey: a.VAPIDPublic, PrivateKey: a.VAPIDPrivate, Subject: a.Subject, AllowHosts: hosts}
	}
	switch p {
	case pb.Platform_PLATFORM_APNS:
		return apns.New(as, log)
	case pb.Platform_PLATFORM_FCM:
		return fcm.New(fs, log)
	}
	return webpush.New(ws, log)
}

// authorization is an app's at a service. A bubble's clock always begins at the same time, and a seed takes minutes: one does for all.
func (c *credentials) authorization(at place) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth[at] == "" {
		made, err := simulatortest.Authorize(c.providers, c.apps[at.app], at.service, time.Now())
		if err != nil {
			return "", err
		}
		c.auth[at] = made
	}
	return c.auth[at], nil
}

var modelKey = sync.OnceValue(func() []byte {
	key, err := ecdh.P256().GenerateKey(crand.Reader)
	if err != nil {
		panic(err)
	}
	return key.PublicKey().Bytes()
})

// role is one process.
type role struct {
	name string
	make func(k *stream.Kafka, life *life) (func(context.Context) error, error)
	life *life
}

// life is a process's, from its start to its end.
type life struct {
	m     *model
	stop  context.CancelFunc
	ended chan error

	mu    sync.Mutex // guards what follows
	dead  bool       // killed: nothing of it reaches anybody any more
	conns []net.Conn
}

func newModel(t *testing.T, noise uint64) *model {
	creds, err := modelCredentials()
	if err != nil {
		t.Fatal(err)
	}
	m := &model{
		t: t, network: &kfake.VirtualNetwork{}, creds: creds, providers: creds.providers.Fresh(), roles: map[string]*role{},
		noise: rand.New(rand.NewPCG(noise, 3)), accepted: map[[16]byte]time.Time{}, conns: map[net.Conn]bool{},
	}
	m.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(m.network.Listen), kfake.Ports(9092))
	if err != nil {
		t.Fatal(err)
	}
	stream.FillFetches(m.cluster)
	m.kafka = &stream.Kafka{
		Brokers: m.cluster.ListenAddrs(), Prefix: "belfry.", Instance: "model", Log: slog.New(slog.DiscardHandler), Dial: m.dial,
	}
	if _, err := stream.ApplyTopics(t.Context(), m.kafka); err != nil {
		t.Fatal(err)
	}
	if err := stream.MarkCluster(t.Context(), m.kafka); err != nil {
		t.Fatal(err)
	}
	accepting := *m.kafka // whose way to Kafka is not cut: what it writes counts as accepted
	accepting.Dial = m.network.DialContext
	if m.client, err = accepting.Client(); err != nil {
		t.Fatal(err)
	}
	m.redis = registrytest.Redis(t)
	m.registry = registrytest.Registry(t, m.redis, creds.records...)
	m.refused = newRefusals(m.cluster)
	m.cast()
	return m
}

// cast starts every role.
func (m *model) cast() {
	m.roles["fanout"] = &role{name: "fanout", make: func(k *stream.Kafka, _ *life) (func(context.Context) error, error) {
		return fanout.New(fanout.Options{Kafka: k, Registry: m.registry}).Run, nil
	}}
	m.roles["ledger"] = &role{name: "ledger", make: func(k *stream.Kafka, _ *life) (func(context.Context) error, error) {
		return ledger.New(ledger.Options{Kafka: k, Redis: m.redis, Prefix: m.redis.Prefix}).Run, nil
	}}
	for _, p := range schemas.Platforms {
		name := "senders." + schemas.PlatformName(p)
		m.roles[name] = &role{name: name, make: m.senders(p, modelApps...)}
	}
	for _, r := range m.roles {
		m.start(r)
	}
}

func (m *model) senders(p pb.Platform, apps ...string) func(*stream.Kafka, *life) (func(context.Context) error, error) {
	return func(k *stream.Kafka, l *life) (func(context.Context) error, error) {
		real, err := m.creds.provider(p, apps...)
		if err != nil {
			return nil, err
		}
		return senders.NewPlatform(k, &wireless{Provider: real, life: l}, schemas.Classes).Run, nil
	}
}

// start begins a role's process.
func (m *model) start(r *role) {
	ctx, stop := context.WithCancel(context.Background())
	l := &life{m: m, stop: stop, ended: make(chan error, 1)}
	k := *m.kafka
	k.Instance, k.Dial = r.name, l.dial
	run, err := r.make(&k, l)
	if err != nil {
		m.t.Fatal(err)
	}
	r.life = l
	go func() { l.ended <- run(ctx) }()
}

// halt ends a role's process in good order.
func (m *model) halt(r *role) {
	r.life.stop()
	if err := <-r.life.ended; err != nil {
		m.t.Errorf("role %s: %v", r.name, err)
	}
}

// kill ends a role's process as SIGKILL does: nothing that it still does reaches anybody. awaited is closed when its goroutines
// have ended too.
func (m *model) kill(r *role) (awaited <-chan error) {
	l := r.life
	l.mu.Lock()
	l.dead = true
	for _, c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.stop()
	return l.ended
}

func (l *life) dial(ctx context.Context, network, host string) (net.Conn, error) {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if dead {
		return nil, errors.New("this process was killed")
	}
	c, err := l.m.dial(ctx, network, host)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	return c, nil
}

// dial is the way to Kafka.
func (m *model) dial(ctx context.Context, network, host string) (net.Conn, error) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away {
		return nil, errors.New("connection refused")
	}
	c, err := m.network.DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[c] = true
	return c, nil
}

// cut has Kafka be away, or back.
func (m *model) cut(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
	if away {
		for c := range m.conns {
			c.Close()
		}
		clear(m.conns)
	}
}

// close ends everything.
func (m *model) close() {
	for _, r := range m.roles {
		m.halt(r)
	}
	for _, d := range m.dying {
		<-d // with an error, or without
	}
	m.client.Close()
	m.providers.ClearFaults()
	m.cluster.Close()
}

// wireless is a platform's provider without a wire.
type wireless struct {
	senders.Provider
	life *life
}

// Run implements senders.Provider: there are no tokens to renew.
func (w *wireless) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Send implements senders.Provider.
func (w *wireless) Send(batch []*senders.Request) {
	for _, r := range slices.Clone(batch) {
		id := [16]byte(r.Delivery.Id)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
			defer cancel()
			res := w.life.m.ask(ctx, r, w.life, id)
			if ctx.Err() != nil {
				res = wire.Result{Err: ctx.Err(), Sent: true}
			}
			res.Request = &r.Request
			r.Handler.Answered([]wire.Result{res})
		}()
	}
}

// ask asks the simulated provider.
func (m *model) ask(ctx context.Context, r *senders.Request, l *life, id [16]byte) wire.Result {
	to, err := m.request(r)
	if err != nil {
		m.t.Error(err)
		return wire.Result{Err: err}
	}
	m.noiseMu.Lock()
	takes := 20*time.Millisecond + time.Duration(m.noise.IntN(20_000))*time.Microsecond
	m.noiseMu.Unlock()
	select {
	case <-ctx.Done():
		return wire.Result{}
	case <-time.After(takes):
	}
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if dead {
		<-ctx.Done()
		return wire.Result{}
	}
	a := m.providers.Ask(ctx, to)
	if a.Accepted {
		m.mu.Lock()
		if _, before := m.accepted[id]; !before {
			m.accepted[id] = time.Now()
		}
		m.mu.Unlock()
	}
	if a.Status == 0 {
		return wire.Result{Err: errors.New("the stream was reset"), Sent: true}
	}
	return wire.Result{Status: a.Status, Body: a.Body, Header: wire.NewHeader(a.Header()), Sent: true}
}

// request is a request as the simulator takes it.
func (m *model) request(r *senders.Request) (*simulator.Request, error) {
	to := &simulator.Request{Method: http.MethodPost, Path: r.Path, Header: http.Header{}, Body: slices.Clone(r.Body)}
	switch r.Delivery.Target.Kind.(type) {
	case *pb.Target_Apns:
		to.Service = simulator.APNs
	case *pb.Target_Fcm:
		to.Service = simulator.FCM
	default:
		at := slices.IndexFunc(modelBrowsers, func(s simulator.Service) bool { return r.Origin == m.providers.URL(s) })
		if at < 0 {
			return nil, fmt.Errorf("nobody is at %s", r.Origin)
		}
		to.Service = modelBrowsers[at]
	}
	for _, f := range r.Fields {
		to.Header[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
	}
	if len(r.Plain) > 0 {
		to.Header.Del("Content-Encoding") // it goes without a body: encrypting costs ten times all else
	}
	auth, err := m.creds.authorization(place{r.Delivery.App, to.Service})
	if err != nil {
		return nil, err
	}
	to.Header.Set("Authorization", auth)
	return to, nil
}

// produce writes a record.
func (m *model) produce(topic string, key []byte, v proto.Message) {
	value, err := proto.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	m.client.Produce(context.Background(), &kgo.Record{Topic: m.kafka.Topic(topic), Key: key, Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			m.t.Errorf("produce to %s: %v", topic, err)
		}
	})
}
