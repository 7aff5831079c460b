package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/stream"
)

func topicsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "topics", Short: "Compare a Kafka cluster's topics with Belfry's plan, and make them so"}
	cmd.AddCommand(
		topicsAction("plan", "Show how the cluster's topics differ from what Belfry needs", stream.PlanTopics),
		topicsAction("apply", "Create and adjust topics; nothing is ever deleted", applyTopics),
	)
	return cmd
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
