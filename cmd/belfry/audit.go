package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/audit"
	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

func campaignAudit() *cobra.Command {
	var path, app, simulator string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit ID",
		Short: "Count a campaign's run again from Kafka, and compare it with the ledger",
		Long: `Count a campaign's run again from what lies on Kafka (its chunks, deliveries, retries, results and dead letters), and
compare that with the ledger's accounts; with --simulator also with the receipts of a simulated provider. Every figure is
printed. The exit status is 1 when they differ.

It reads Kafka itself, so it needs the configuration and not an API key. "~messages" is the run of the transactional
messages, and "~rule.NAME" that of a rule.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			if app, err = appOf(cfg, app); err != nil {
				return err
			}
			k, done, err := openCluster(cmd, cfg)
			if err != nil {
				return err
			}
			defer done()
			report, err := auditRun(cmd.Context(), k, audit.Run{App: app, Run: args[0]}, simulator)
			if err != nil {
				return err
			}
			if asJSON {
				err = show(cmd, report, true)
			} else {
				err = printAudit(cmd.OutOrStdout(), report)
			}
			if err == nil && len(report.Differences) > 0 {
				err = errSaid
			}
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&app, "app", "", "the campaign's app; may be left out where the configuration has one only")
	cmd.Flags().StringVar(&simulator, "simulator", "", "control API of the simulator that was the provider, e.g. http://127.0.0.1:9408")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func appOf(cfg *config.Config, name string) (string, error) {
	known := slices.Sorted(maps.Keys(cfg.Apps))
	switch {
	case name == "" && len(known) == 1:
		return known[0], nil
	case name == "":
		return "", fmt.Errorf("--app: say which of %v", known)
	case !slices.Contains(known, name):
		return "", fmt.Errorf("--app: %q is not in the configuration, which has %v", name, known)
	}
	return name, nil
}

// openCluster is the configured Kafka, or the embedded one while no belfry serves on it.
func openCluster(cmd *cobra.Command, cfg *config.Config) (*stream.Kafka, func(), error) {
	k, err := kafkaOf(cmd, cfg)
	if err != nil || len(k.Brokers) > 0 {
		return k, func() {}, err
	}
	broker, err := stream.StartEmbedded(kafkaFolder(cfg))
	if err != nil {
		return nil, nil, err
	}
	k.Brokers = broker.Addrs()
	return k, broker.Close, nil
}

// auditTries is how often a run is counted that does not add up: the ledger may be a moment behind.
const auditTries = 3

func auditRun(ctx context.Context, k *stream.Kafka, run audit.Run, simulator string) (*audit.Report, error) {
	since, err := launchOf(ctx, k, run)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		count, err := audit.Read(ctx, k, since, func(r audit.Run) bool { return r == run })
		if err != nil {
			return nil, err
		}
		var receipts map[[16]byte]int
		if simulator != "" {
			if receipts, err = audit.Receipts(ctx, simulator); err != nil {
				return nil, err
			}
		}
		report := count.Report(run, receipts)
		if len(report.Platforms) == 0 {
			return nil, fmt.Errorf("the topics at %v hold nothing of run %s of app %s", k.Brokers, run.Run, run.App)
		}
		if len(report.Differences) == 0 || try == auditTries {
			return report, nil
		}
		if !sleep(ctx, 2*time.Second) {
			return nil, ctx.Err()
		}
	}
}

// launchOf is when the first records of a run may have been written. Clocks differ, but not by an hour.
func launchOf(ctx context.Context, k *stream.Kafka, run audit.Run) (since time.Time, err error) {
	key := string(schemas.Key(run.App, run.Run))
	var unreadable error
	err = audit.Scan(ctx, k, schemas.TopicCampaigns, time.Time{}, func(r *kgo.Record) {
		if string(r.Key) != key {
			return
		}
		var c pb.Campaign
		unreadable = proto.Unmarshal(r.Value, &c)
		since = time.UnixMilli(c.GetCreatedAt()).Add(-time.Hour)
	})
	if err = errors.Join(err, unreadable); err != nil {
		return since, fmt.Errorf("look for the campaign: %w", err)
	}
	return since, nil
}

func printAudit(w io.Writer, r *audit.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tplanned\taccepted\tunregistered\trejected\texpired\tcancelled\tdead\tpending\tput off\treplayed\tchunks\t")
	row := func(name string, f audit.Figures) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d/%d\t\n", name, f.Planned, f.Accepted, f.Unregistered,
			f.Rejected, f.Expired, f.Cancelled, f.Dead, f.Pending, f.Deferred, f.Replayed, f.ChunksExpanded, f.Chunks)
	}
	for _, p := range r.Platforms {
		row(p.Name+", the ledger", p.Account)
		row(p.Name+", counted again", p.Topics)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range r.Platforms {
		fmt.Fprintf(w, "\n%s: %d on the send topics, %d records on the retry topics, %d dead letters, %d not ended.\n",
			p.Name, p.Sent, p.Retries, p.DeadLetters, p.NotEnded)
		if p.Received != nil {
			fmt.Fprintf(w, "%s: the provider has receipts of %d, %d more than once; of %d it accepted, the answer was lost.\n",
				p.Name, p.Received.Deliveries, p.Received.Repeats, p.Received.Unheard)
		}
	}
	if len(r.Differences) == 0 {
		end := "The books balance."
		if !r.Settled {
			end = "The books balance so far; not every delivery has ended."
		}
		_, err := fmt.Fprintf(w, "\n%s\n", end)
		return err
	}
	fmt.Fprint(w, "\nTHE BOOKS DO NOT BALANCE:\n")
	for _, line := range r.Differences {
		fmt.Fprintln(w, "  "+line)
	}
	return nil
}
