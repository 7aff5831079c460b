package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/stream"
)

func topicsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "topics", Short: "Compare a Kafka cluster's topics with Belfry's plan, and make them so"}
	cmd.AddCommand(
		topicsAction("plan", "Show how the cluster's topics differ from what Belfry needs", planTopics),
		topicsAction("apply", "Create and adjust topics; nothing is ever deleted", applyTopics),
		topicsRepair(),
	)
	return cmd
}

// planTopics fails where apply would.
func planTopics(ctx context.Context, k *stream.Kafka) ([]stream.TopicChange, error) {
	changes, err := stream.PlanTopics(ctx, k)
	if err == nil && slices.ContainsFunc(changes, func(c stream.TopicChange) bool { return c.Kind == stream.Conflict }) {
		err = errors.New("belfry serve refuses such a cluster, and belfry topics apply cannot mend it: run belfry topics repair")
	}
	return changes, err
}

func applyTopics(ctx context.Context, k *stream.Kafka) ([]stream.TopicChange, error) {
	changes, err := stream.ApplyTopics(ctx, k)
	if err != nil {
		return changes, err
	}
	return changes, errors.Join(stream.WaitForTopics(ctx, k), stream.MarkCluster(ctx, k))
}

func topicsAction(use, short string, act func(context.Context, *stream.Kafka) ([]stream.TopicChange, error)) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := clusterOf(cmd, path)
			if err != nil {
				return err
			}
			changes, err := act(cmd.Context(), k)
			if printed := printChanges(cmd.OutOrStdout(), changes, asJSON); printed != nil {
				return printed
			}
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array")
	return cmd
}

func topicsRepair() *cobra.Command {
	var path string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Bring records back to where their keys belong, after partitions were added where none may be",
		Long: `Bring records back to where their keys belong, after the number of partitions of a topic was changed whose keys must
keep their partition. Without --yes it changes nothing and shows what it would do. With it no record is lost: of each key the
newest is written where it belongs, and what lies elsewhere is removed. It may be stopped at any moment and run again, and
belfry may serve meanwhile, but no release before this one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			k, done, err := openCluster(cmd, cfg)
			if err != nil {
				return err
			}
			defer done()
			repairs, err := stream.RepairTopics(cmd.Context(), k, yes)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(repairs)
			}
			return printRepairs(cmd.OutOrStdout(), repairs, yes)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array")
	return cmd
}

func printRepairs(w io.Writer, repairs []stream.TopicRepair, done bool) error {
	nothing := true
	for _, r := range repairs {
		if r.Nothing() {
			continue
		}
		nothing = false
		noted := "none noted"
		if r.Noted > 0 {
			noted = fmt.Sprintf("%d noted", r.Noted)
		}
		fmt.Fprintf(w, "%s: %d partitions, %s; keys lie on the first %d\n", r.Topic, r.Partitions, noted, r.Spread)
		if n := r.Spread - r.Partitions; n > 0 {
			fmt.Fprintf(w, "  %d partitions more are needed\n", n)
		}
		for _, m := range r.Moves {
			fmt.Fprintf(w, "  %d keys from partition %d to %d\n", m.Keys, m.From, m.To)
		}
		if r.Stale > 0 {
			fmt.Fprintf(w, "  %d keys with older records elsewhere, which are removed\n", r.Stale)
		}
	}
	end := "Done: belfry serve starts again."
	switch {
	case nothing:
		end = "Nothing to do: every key lies where it belongs."
	case !done:
		end = "Nothing was changed. Add --yes to do it."
	}
	_, err := fmt.Fprintln(w, end)
	return err
}

// clusterOf reads the configuration for a command that needs a real Kafka.
func clusterOf(cmd *cobra.Command, path string) (*stream.Kafka, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if len(cfg.Kafka.Brokers) == 0 {
		return nil, errors.New("kafka.brokers is not set: the embedded Kafka makes its topics by itself when belfry serve starts")
	}
	return kafkaOf(cmd, cfg)
}

func kafkaOf(cmd *cobra.Command, cfg *config.Config) (*stream.Kafka, error) {
	return cfg.Stream(cfg.Logger(cmd.ErrOrStderr()))
}

func printChanges(w io.Writer, changes []stream.TopicChange, asJSON bool) error {
	if asJSON {
		if changes == nil {
			changes = []stream.TopicChange{}
		}
		return json.NewEncoder(w).Encode(changes)
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "Nothing to do: the topics are as planned.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Kind, c.Topic, c.Detail)
	}
	return t.Flush()
}
