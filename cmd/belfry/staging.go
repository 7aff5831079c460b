package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// staging is all of Belfry in this process, sending to simulated providers: what belfry demo runs on.
type staging struct {
	stagingOptions
	sim *simulator.Simulator
	app *app
	dir string
	// stop ends the roles, and ended gives what they ended with.
	stop  context.CancelFunc
	ended chan error
}

type stagingOptions struct {
	simulator simulator.Options
	// kafka and redis are real ones; none: embedded.
	kafka, redis []string
	// timeout is how long one request to a provider may take. 0: the configuration's default.
	timeout time.Duration
	// ui is where progress and errors go.
	ui io.Writer
	// say tells a person what happens.
	say func(format string, args ...any)
}

// sayer tells w what happens, after the seconds since began.
func sayer(w io.Writer, began time.Time) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(w, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// startStaging opens everything and runs the roles: the providers, then Belfry on a configuration that names them. The
// context that it returns ends with ctx, and when a role has failed: without its roles all else would wait for ever.
func startStaging(ctx context.Context, o stagingOptions) (*staging, context.Context, error) {
	s := &staging{stagingOptions: o, stop: func() {}}
	if err := s.open(ctx); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.ended = make(chan error, 1)
	go func() {
		err := s.app.Run(ctx)
		s.stop()
		s.ended <- err
	}()
	return s, ctx, nil
}

func (s *staging) open(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "belfry-demo-"); err != nil {
		return err
	}
	p := s.stagingOptions.simulator.Population
	s.say("starting APNs, FCM and four web push services, simulated, with %d devices", p.Devices*len(p.Apps))
	if s.sim, err = simulator.Start(s.stagingOptions.simulator); err != nil {
		return err
	}
	if err := s.sim.WriteSetup(s.dir); err != nil {
		return err
	}
	cfg, err := s.configure()
	if err != nil {
		return err
	}
	s.say("starting Belfry on %s Kafka and %s Redis", kindOf(cfg.Kafka.Brokers), kindOf(cfg.Redis.Addresses))
	log := slog.New(slog.NewTextHandler(s.ui, &slog.HandlerOptions{Level: slog.LevelError}))
	if len(cfg.Kafka.Brokers) > 0 {
		k, err := cfg.Stream(log)
		if err == nil {
			_, err = applyTopics(ctx, k)
		}
		if err != nil {
			return err
		}
	}
	s.app, err = openApp(ctx, cfg, log)
	return err
}

// configure takes the simulator's configuration and puts it where the options say, under names of its own.
func (s *staging) configure() (*config.Config, error) {
	cfg, err := config.Load(filepath.Join(s.dir, "belfry.yaml"), nil)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("belfry-demo-%08x", rand.Uint32())
	cfg.Instance, cfg.Listen, cfg.DataDir = name, "127.0.0.1:0", filepath.Join(s.dir, "data")
	cfg.Kafka.Brokers, cfg.Redis.Addresses, cfg.Redis.Cluster = s.kafka, s.redis, len(s.redis) > 1
	if len(s.kafka) > 0 {
		cfg.Kafka.Prefix = name + "."
	}
	if len(s.redis) > 0 {
		cfg.Redis.Prefix = name + ":"
	}
	if s.timeout > 0 {
		cfg.Senders.Timeout = s.timeout
	}
	return cfg, cfg.Validate()
}

// close ends the roles, removes what a real Kafka and Redis were given, and ends what else runs in this process.
func (s *staging) close() (err error) {
	s.stop()
	if s.ended != nil {
		err = <-s.ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.app != nil {
		if len(s.redis) > 0 {
			err = errors.Join(err, s.app.redis.RemoveAll(ctx))
		}
		if len(s.kafka) > 0 {
			err = errors.Join(err, removeTopics(ctx, s.app.kafka))
		}
		s.app.Close()
	}
	if s.sim != nil {
		err = errors.Join(err, s.sim.Close())
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func removeTopics(ctx context.Context, k *stream.Kafka) error {
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	var names []string
	for _, t := range schemas.Plan() {
		names = append(names, k.Topic(t.Name))
	}
	_, err = kadm.NewClient(client).DeleteTopics(ctx, names...)
	return err
}

// client calls the API for an app of the simulator's.
func (s *staging) client(app string) (*client, error) {
	a, err := s.sim.App(app)
	if err != nil {
		return nil, err
	}
	return &client{server: "http://" + s.app.address, key: a.APIKey}, nil
}

// register sends devices, one a line, through the API, and waits until the registry has as many of the app.
func (s *staging) register(ctx context.Context, app string, lines io.Reader, devices int) error {
	api, err := s.client(app)
	if err != nil {
		return err
	}
	resp, err := api.request(ctx, http.MethodPost, "/devices/bulk", http.Header{"Content-Type": {"application/x-ndjson"}}, lines)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answers, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("register devices: %w", err)
	}
	if n := strings.Count(string(answers), `"accepted"`); n != devices {
		return fmt.Errorf("%d of %d devices were accepted", n, devices)
	}
	return s.registered(ctx, app, devices)
}

// registered waits until the registry has so many of an app's devices.
func (s *staging) registered(ctx context.Context, app string, devices int) error {
	for {
		counts, err := registry.New(s.app.redis).CountDevices(ctx, app)
		if err != nil && !errors.Is(err, registry.ErrNotBuilt) { // a new Redis is built first
			return err
		}
		var n uint64
		for _, c := range counts {
			n += c
		}
		if n >= uint64(devices) {
			return nil
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}
