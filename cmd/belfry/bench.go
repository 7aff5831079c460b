package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/bench"
)

type benchOptions struct {
	quick, asJSON bool
	profile       string
	kafka, redis  []string
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Belfry: against what it is built on, and what one part of its traffic does to another",
		Long: `Measure Belfry against what it is built on (wire, lane-…, intake, fanout, end-to-end, latency, growth, scale), and what one part
of its traffic does to another (isolation, urgent, fairness). Each measurement is made in pairs, in turns.
docs/performance.md says what the figures mean.

--kafka and --redis put it on real ones, under names of its own that it removes; without, both are embedded. All but
isolation and fairness take nginx, nghttpd or h2load for a server or a client to compare with, and say so where one is missing.`,
	}
	f := cmd.PersistentFlags()
	f.BoolVar(&o.quick, "quick", false, "in less than 30 seconds: fewer and shorter rounds, fewer devices")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object at the end, on one line")
	f.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the engine's first round to this file, where it runs in this process")
	f.StringSliceVar(&o.kafka, "kafka", nil, "a real Kafka's brokers, host:port (default: embedded)")
	f.StringSliceVar(&o.redis, "redis", nil, "a real Redis, host:port; several are a cluster (default: embedded)")
	for _, one := range benches {
		cmd.AddCommand(&cobra.Command{
			Use: one.name, Short: one.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return runBench(cmd, one.of(o.quick), o) },
		})
	}
	cmd.AddCommand(benchClusterCommand(), benchTableCommand())
	return cmd
}

func runBench(cmd *cobra.Command, b bench.Bench, o benchOptions) error {
	// It stops what it has started also when its terminal, or whoever read what it says, is gone.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	report, err := measure(ctx, b, o, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(report)
	}
	return report.Print(cmd.OutOrStdout())
}

// measure makes one, in a folder of its own.
func measure(ctx context.Context, b bench.Bench, o benchOptions, ui io.Writer) (_ bench.Report, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "belfry-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return b.Run(ctx, &bench.Env{
		Belfry: program, Kafka: o.kafka, Redis: o.redis, Dir: dir, Say: sayer(ui, time.Now()), Profile: o.profile,
	})
}
