package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/bench"
	"github.com/belfry/belfry/simulator"
)

type benchOptions struct {
	quick, asJSON bool
	kafka, redis  []string
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what one part of the traffic does to another",
		Long: `Measure what one part of the traffic does to another, with everything in this process, the providers simulated. Each
measurement is made with and without, in turns. docs/performance.md says what the figures mean.

It needs nothing but this binary. --kafka and --redis put it on real ones, under names of its own that it removes.`,
	}
	f := cmd.PersistentFlags()
	f.BoolVar(&o.quick, "quick", false, "in less than 30 seconds: fewer and shorter rounds, fewer devices")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object at the end, on one line")
	f.StringSliceVar(&o.kafka, "kafka", nil, "a real Kafka's brokers, host:port (default: embedded)")
	f.StringSliceVar(&o.redis, "redis", nil, "a real Redis, host:port; several are a cluster (default: embedded)")
	for _, one := range []struct {
		name, short string
		of          func(quick bool) bench.Bench
	}{
		{"isolation", "A sick platform, web push service or app, and the others' throughput and delay", isolationBench},
		{"urgent", "A blast, and the time from API to provider of a transactional message", urgentBench},
		{"fairness", "A big campaign, and the time of a small one behind it", fairnessBench},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: one.name, Short: one.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return runBench(cmd, one.of(o.quick), o) },
		})
	}
	return cmd
}

func isolationBench(quick bool) bench.Bench {
	if quick {
		return bench.Isolation{
			Pairs: []string{"webpush-blackhole", "origin-blackhole"}, Rounds: 2,
			Ticks: 5, Paced: 100, Bursts: 1, Burst: 1000,
		}
	}
	return bench.Isolation{Rounds: 3, Ticks: 30, Paced: 100, Bursts: 3, Burst: 1000, Lead: 1500 * time.Millisecond}
}

func urgentBench(quick bool) bench.Bench {
	if quick {
		return bench.Urgent{Devices: 60_000, Rounds: 2, Calls: 150, Every: 15 * time.Millisecond}
	}
	return bench.Urgent{Devices: 1_000_000, Rounds: 5, Calls: 500, Every: 20 * time.Millisecond}
}

func fairnessBench(quick bool) bench.Bench {
	if quick {
		return bench.Fairness{Devices: 100_000, Small: 1000, Rounds: 1}
	}
	return bench.Fairness{Devices: 1_000_000, Small: 1000, Rounds: 3}
}

func runBench(cmd *cobra.Command, b bench.Bench, o benchOptions) error {
	report, err := measure(cmd.Context(), b, o, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(report)
	}
	return report.Print(cmd.OutOrStdout())
}

// measure runs one on a staging of its own.
func measure(ctx context.Context, b bench.Bench, o benchOptions, ui io.Writer) (bench.Report, error) {
	receipts := &bench.Receipts{}
	stage, ctx, err := startStaging(ctx, stagingOptions{
		name:      "bench",
		simulator: simulator.Options{Population: b.Population(), Accepted: receipts.Accepted},
		kafka:     o.kafka, redis: o.redis,
		ui: ui, say: sayer(ui, time.Now()),
	})
	if err != nil {
		return nil, err
	}
	report, err := b.Run(ctx, &bench.Stage{
		Kafka: stage.app.kafka, Simulator: stage.sim, Receipts: receipts, Say: stage.say,
		Call: func(ctx context.Context, app, method, path string, in, out any) error {
			api, err := stage.client(app)
			if err != nil {
				return err
			}
			return api.call(ctx, method, path, in, out)
		},
		Register: func(ctx context.Context, app string, lines io.Reader, n int) error {
			return stage.register(ctx, app, lines, n)
		},
	})
	return report, errors.Join(err, stage.close())
}
