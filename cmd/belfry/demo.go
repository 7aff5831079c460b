package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
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
	*staging
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
	began := time.Now()
	stage, ctx, err := startStaging(cmd.Context(), stagingOptions{
		simulator: simulator.Options{Population: simulator.Population{
			Seed: 1, Apps: []string{demoApp}, Devices: o.devices, Gone: demoGone,
		}},
		kafka: o.kafka, redis: o.redis,
		// A request that waits out the stall is answered, and not sent again: a timeout leaves it unknown whether the
		// provider took it, and then the receipts would rightly show some twice.
		timeout: 2 * stallFor,
		ui:      cmd.ErrOrStderr(), say: sayer(cmd.ErrOrStderr(), began),
	})
	if err != nil {
		return nil, err
	}
	d := &demo{demoOptions: o, staging: stage}
	report, err := d.run(ctx)
	if err := errors.Join(err, stage.close()); err != nil {
		return nil, err
	}
	report.ElapsedS = time.Since(began).Seconds()
	return report, nil
}

func (d *demo) run(ctx context.Context) (_ *demoReport, err error) {
	if d.fates, err = d.sim.Devices(demoApp); err != nil {
		return nil, err
	}
	if d.api, err = d.client(demoApp); err != nil {
		return nil, err
	}
	if err := d.registerAll(ctx); err != nil {
		return nil, err
	}
	d.say("sending one campaign to all of them")
	var created producer.Campaign
	err = d.api.call(ctx, http.MethodPost, "/campaigns", producer.CampaignDefinition{
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

func (d *demo) registerAll(ctx context.Context) error {
	d.say("registering the devices through the HTTP API")
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.sim.WriteDevices(w, demoApp)) }()
	defer r.Close()
	return d.register(ctx, demoApp, r, d.devices)
}
