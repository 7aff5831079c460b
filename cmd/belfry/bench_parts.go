package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"

	"github.com/belfry/belfry/bench"
	"github.com/belfry/belfry/stream"
)

// benchClusterCommand is an embedded Kafka and Redis in a process of their own, so that what a measurement costs is not
// mixed with what they do.
func benchClusterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cluster", Hidden: true, Args: cobra.NoArgs,
		Short: "An embedded Kafka and Redis, in memory, until standard input ends",
		RunE: func(cmd *cobra.Command, _ []string) error {
			broker, err := stream.StartEmbedded("")
			if err != nil {
				return err
			}
			defer broker.Close()
			redis, err := miniredis.Run()
			if err != nil {
				return fmt.Errorf("start the embedded Redis: %w", err)
			}
			defer redis.Close()
			at := bench.Cluster{Kafka: broker.Addrs(), Redis: []string{redis.Addr()}}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(at); err != nil {
				return err
			}
			gone := make(chan struct{})
			go func() {
				_, _ = cmd.InOrStdin().Read(make([]byte, 1)) // it ends with whoever started this
				close(gone)
			}()
			select {
			case <-cmd.Context().Done():
			case <-gone:
			}
			return nil
		},
	}
}

// benchTableCommand is the last step of make bench.
func benchTableCommand() *cobra.Command {
	return &cobra.Command{
		Use: "table FILE", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Put results, one JSON object a line on standard input, into a document's table",
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if doc, err = bench.WriteTable(doc, cmd.InOrStdin(), machine(time.Now())); err != nil {
				return err
			}
			return os.WriteFile(args[0], doc, 0o644)
		},
	}
}

// machine says where and when figures were made.
func machine(now time.Time) string {
	model := runtime.GOARCH
	cpus, _ := os.ReadFile("/proc/cpuinfo") // Linux alone has it
	for line := range strings.Lines(string(cpus)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d cores (%s), %s, belfry %s. Everything ran on these cores: Belfry, Kafka, Redis, servers and clients.",
		now.Format("2 January 2006"), runtime.NumCPU(), model, runtime.Version(), version)
}
