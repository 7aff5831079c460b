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

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

const (
	demoApp     = "demo"
	stallOrigin = "mozilla"
	stallFor    = 10 * time.Second
	// demoGone is the share of devices that the providers know no more, so that the ledger has more than one column.
	demoGone = 0.01
)

type demoOptions struct {
	devices int
	kafka   []string
	redis   []string
	asJSON  bool
}

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send a campaign to simulated devices, stall a provider in the middle, and check the books",
		Long: `Run everything in this process: the providers simulated, Belfry with all its roles, devices registered and a campaign
sent through the HTTP API. In the middle one web push service stalls for ten seconds. In the end the ledger stands beside
what the providers have in their receipts, and the exit status is 0 only if they agree and each device was reached once.

It needs nothing but this binary. --kafka and --redis put it on real ones, under names of its own that it removes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := runDemo(cmd, o)
			if err != nil {
				return err
			}
			return report.print(cmd.OutOrStdout(), o.asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.devices, "devices", 100_000, "how many devices")
	f.StringSliceVar(&o.kafka, "kafka", nil, "a real Kafka's brokers, host:port (default: embedded)")
	f.StringSliceVar(&o.redis, "redis", nil, "a real Redis, host:port; several are a cluster (default: embedded)")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object at the end, on one line")
	return cmd
}

// demo is one run.
type demo struct {
	demoOptions
	say func(format string, args ...any)
	ui  io.Writer
	sim *simulator.Simulator
	app *app
	api *client
	// fates are what the providers know of the devices: platform → fate → how many.
	fates map[string]map[simulator.Fate]int
}

// webpush is how many browsers there are.
func (d *demo) webpush() (n int) {
	for _, count := range d.fates["webpush"] {
		n += count
	}
	return n
}

func runDemo(cmd *cobra.Command, o demoOptions) (_ *demoReport, err error) {
	dir, err := os.MkdirTemp("", "belfry-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	d := &demo{demoOptions: o, ui: cmd.ErrOrStderr()}
	began := time.Now()
	d.say = func(format string, args ...any) {
		fmt.Fprintf(d.ui, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	if err := d.start(ctx, dir); err != nil {
		return nil, errors.Join(err, d.close())
	}
	failed := make(chan error, 1)
	go func() {
		err := d.app.Run(ctx)
		stop() // without its roles the rest would wait for ever
		failed <- err
	}()
	report, err := d.run(ctx)
	stop()
	err = errors.Join(err, <-failed, d.close())
	if err != nil {
		return nil, err
	}
	report.ElapsedS = time.Since(began).Seconds()
	return report, nil
}

// start opens everything: the providers, then Belfry on a configuration that names them.
func (d *demo) start(ctx context.Context, dir string) (err error) {
	d.say("starting APNs, FCM and four web push services, simulated, with %d devices", d.devices)
	d.sim, err = simulator.Start(simulator.Options{Population: simulator.Population{
		Seed: 1, Apps: []string{demoApp}, Devices: d.devices, Gone: demoGone,
	}})
	if err != nil {
		return err
	}
	if err := d.sim.WriteFiles(dir); err != nil {
		return err
	}
	if d.fates, err = d.sim.Devices(demoApp); err != nil {
		return err
	}
	cfg, err := d.configure(dir)
	if err != nil {
		return err
	}
	d.say("starting Belfry on %s Kafka and %s Redis", kindOf(cfg.Kafka.Brokers), kindOf(cfg.Redis.Addresses))
	log := slog.New(slog.NewTextHandler(d.ui, &slog.HandlerOptions{Level: slog.LevelError}))
	if len(cfg.Kafka.Brokers) > 0 {
		k, err := cfg.Stream(log)
		if err == nil {
			_, err = applyTopics(ctx, k)
		}
		if err != nil {
			return err
		}
	}
	if d.app, err = openApp(ctx, cfg, log); err != nil {
		return err
	}
	app, err := d.sim.App(demoApp)
	if err != nil {
		return err
	}
	d.api = &client{server: "http://" + d.app.address, key: app.APIKey}
	return nil
}

// configure takes the simulator's configuration and puts it where the options say, under names of its own.
func (d *demo) configure(dir string) (*config.Config, error) {
	cfg, err := config.Load(filepath.Join(dir, "belfry.yaml"), nil)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("belfry-demo-%08x", rand.Uint32())
	cfg.Instance, cfg.Listen, cfg.DataDir = name, "127.0.0.1:0", filepath.Join(dir, "data")
	cfg.Kafka.Brokers, cfg.Redis.Addresses, cfg.Redis.Cluster = d.kafka, d.redis, len(d.redis) > 1
	if len(d.kafka) > 0 {
		cfg.Kafka.Prefix = name + "."
	}
	if len(d.redis) > 0 {
		cfg.Redis.Prefix = name + ":"
	}
	// A request that waits out the stall is answered, and not sent again: a timeout leaves it unknown whether the provider
	// took it, and then the receipts would rightly show some twice.
	cfg.Senders.Timeout = 2 * stallFor
	return cfg, cfg.Validate()
}

// close removes what a real Kafka and Redis were given, and ends what runs in this process.
func (d *demo) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if d.app != nil {
		if len(d.redis) > 0 {
			err = errors.Join(err, d.app.redis.RemoveAll(ctx))
		}
		if len(d.kafka) > 0 {
			err = errors.Join(err, removeTopics(ctx, d.app.kafka))
		}
		d.app.Close()
	}
	if d.sim != nil {
		err = errors.Join(err, d.sim.Close())
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

func (d *demo) run(ctx context.Context) (*demoReport, error) {
	if err := d.register(ctx); err != nil {
		return nil, err
	}
	d.say("sending one campaign to all of them")
	var created producer.Campaign
	err := d.api.call(ctx, http.MethodPost, "/campaigns", producer.CampaignDefinition{
		Name: "Belfry demo",
		Message: message.Message{
			Title: `Hello {{ attributes.first_name | "there" }}`,
			Body:  `You are on level {{ attributes.level | "1" }}, and this came to you by {{ device.platform }}`,
			TTL:   "2h",
		},
		Audience: producer.Audience{Everyone: true},
		Launch:   true,
	}, &created)
	if err != nil {
		return nil, err
	}
	s := &stall{sim: d.sim, say: d.say}
	stalling, stop := context.WithCancel(ctx)
	defer stop()
	stalled := make(chan error, 1)
	go func() { stalled <- s.run(stalling, d.webpush()) }()
	w := newDemoProgress(d.ui)
	var last producer.Progress
	err = d.api.follow(ctx, created.ID, func(p producer.Progress) error {
		last = p
		w.show(p)
		return nil
	})
	w.end()
	stop()
	if err := errors.Join(err, <-stalled); err != nil {
		return nil, err
	}
	return d.report(last, s, w.rates())
}

// register sends the devices through the API and waits until the registry has them.
func (d *demo) register(ctx context.Context) error {
	d.say("registering the devices through the HTTP API")
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.sim.WriteDevices(w, demoApp)) }()
	defer r.Close()
	resp, err := d.api.request(ctx, http.MethodPost, "/devices/bulk", http.Header{"Content-Type": {"application/x-ndjson"}}, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answers, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("register devices: %w", err)
	}
	if n := strings.Count(string(answers), `"accepted"`); n != d.devices {
		return fmt.Errorf("%d of %d devices were accepted", n, d.devices)
	}
	devices := registry.New(d.app.redis)
	for {
		counts, err := devices.CountDevices(ctx, demoApp)
		if err != nil {
			return err
		}
		var n uint64
		for _, c := range counts {
			n += c
		}
		if n == uint64(d.devices) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
