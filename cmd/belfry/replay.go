package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

func replayCommand(c *client) *cobra.Command {
	var s selector
	var request producer.ReplayRequest
	var rate string
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send dead letters again, or what a provider lost",
		Long: `Send dead letters again: those that all flags agree with. Try it with --dry-run, which shows what would be sent and
writes nothing. With --source send it is the past deliveries that a provider has rejected or, with --include-accepted,
accepted. What was sent again is not sent once more by asking twice; what has expired stays expired (docs/replay.md).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := s.parse(time.Now()); err != nil {
				return err
			}
			request.Selector = s.Selector
			if request.Rate, err = strconv.ParseFloat(strings.TrimSuffix(rate, "/s"), 64); err != nil {
				return fmt.Errorf("--rate %s: give deliveries per second, like 500", rate)
			}
			return c.replay(cmd, request, watch, asJSON)
		},
	}
	s.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&request.Source, "source", "dead", "dead: dead letters; send: past deliveries, which needs --since")
	f.BoolVar(&request.IncludeAccepted, "include-accepted", false, "of past deliveries also those that were accepted: people may get them twice")
	f.StringVar(&rate, "rate", "500", "deliveries per second on each platform")
	f.BoolVar(&request.DryRun, "dry-run", false, "show what would be sent, and do and write nothing")
	f.BoolVarP(&watch, "watch", "w", false, "follow it until it has ended")
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(replayList(c), replayShow(c), replayWatch(c))
	for _, a := range []struct{ name, short string }{
		{"pause", "Hold a replay where it is"},
		{"resume", "Let a paused replay go on"},
		{"cancel", "End a replay; what it sent stays sent"},
	} {
		cmd.AddCommand(replayAction(c, a.name, a.short))
	}
	return cmd
}

// replay asks for one, or counts what it would do.
func (c *client) replay(cmd *cobra.Command, request producer.ReplayRequest, watch, asJSON bool) error {
	var created producer.ReplayCreated
	if err := c.call(cmd.Context(), http.MethodPost, "/replays", request, &created); err != nil {
		return err
	}
	switch {
	case created.DryRun != nil && asJSON:
		return show(cmd, created.DryRun, true)
	case created.DryRun != nil:
		return printHistogram(cmd.OutOrStdout(), created.DryRun)
	case watch:
		return c.watchReplay(cmd, created.Replay.ID, asJSON)
	case asJSON:
		return show(cmd, created.Replay, true)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "Replay %s is under way. Follow it with: belfry replay watch %s\n", created.Replay.ID, created.Replay.ID)
	return err
}

func replayList(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "The replays, newest first: who asked for what, and what became of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Replays []producer.Replay `json:"replays"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/replays", nil, &list); err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !asJSON {
				fmt.Fprintln(t, "ID\tSTATE\tCREATED\tBY\tSOURCE\tMATCHED\tSENT\tEXPIRED\tREPLAYED\tUNREADABLE")
			}
			for _, r := range list.Replays {
				if asJSON {
					if err := show(cmd, r, true); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", r.ID, r.State, r.CreatedAt.Format(time.RFC3339), r.CreatedBy,
					r.Source, r.Matched, r.Sent, r.Expired, r.Replayed, r.Unreadable)
			}
			return t.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func replayShow(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "A replay as it was asked for, and how far it is",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.getReplay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, r, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (c *client) getReplay(ctx context.Context, id string) (r producer.Replay, err error) {
	return r, c.call(ctx, http.MethodGet, pathOf("replays", id), nil, &r)
}

func replayAction(c *client, name, short string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name + " ID",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r producer.Replay
			if err := c.call(cmd.Context(), http.MethodPost, pathOf("replays", args[0], name), nil, &r); err != nil {
				return err
			}
			if asJSON {
				return show(cmd, r, true)
			}
			state := r.State
			if name == "cancel" && state != "cancelled" {
				state = "about to be cancelled"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Replay %s is %s.\n", r.ID, state)
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func replayWatch(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a replay until it has ended",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return c.watchReplay(cmd, args[0], asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// watchReplay follows a replay: bars on a terminal, else a line when something has changed, or JSON lines.
func (c *client) watchReplay(cmd *cobra.Command, id string, asJSON bool) error {
	terminal := onTerminal(cmd.OutOrStdout()) && !asJSON
	bars, platforms := newBars(cmd.OutOrStdout()), map[string]bar{}
	defer func() {
		for _, b := range platforms {
			b.end()
		}
		bars.wait()
	}()
	var last producer.Replay
	for {
		r, err := c.getReplay(cmd.Context(), id)
		if err != nil {
			return err
		}
		changed := r.ReplayCounts != last.ReplayCounts || r.State != last.State
		over := slices.Contains([]string{"finished", "cancelled", "failed"}, r.State)
		switch {
		case asJSON && changed:
			err = show(cmd, r, true)
		case terminal:
			for name, p := range r.Progress {
				if _, ok := platforms[name]; !ok {
					platforms[name] = bars.add(name, int64(p.Read+p.Left))
				}
				platforms[name].set(int64(p.Read), int64(p.Read+p.Left))
			}
		case changed && !over:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %d sent of %d matched, %d of %d looked at\n", r.ID, r.State, r.Sent, r.Matched, r.Read, r.Read+r.Left)
		}
		if err != nil || over && asJSON {
			return err
		}
		if over {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Replay %s is %s: %d sent, %d expired, %d replayed before, %d unreadable.\n",
				r.ID, r.State, r.Sent, r.Expired, r.Replayed, r.Unreadable)
			if r.Detail != "" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), r.Detail)
			}
			return err
		}
		last = r
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(time.Second):
		}
	}
}
