package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

func sendCommand(c *client) *cobra.Command {
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "send FILE",
		Short: "Create the campaign that a file describes, and launch it",
		Long: `Create the campaign that a JSON file describes, and launch it, at once or at its start_at. The file holds what
POST /v1/campaigns takes (docs/api.md); "-" reads standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			created, err := createCampaign(cmd, c, args[0], true)
			if err != nil {
				return err
			}
			if watch {
				return c.watch(cmd, created.ID, asJSON)
			}
			if asJSON {
				return show(cmd, created, true)
			}
			state := created.State
			if state == "" || state == "draft" {
				state = "on Kafka, and launched when the launcher answers"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Campaign %s is %s. Follow it with: belfry campaign watch %s\n", created.ID, state, created.ID)
			return errors.Join(err, warn(cmd, created))
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow it until it has ended")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// createCampaign posts a file, with launch set if asked for.
func createCampaign(cmd *cobra.Command, c *client, name string, launch bool) (created producer.Campaign, err error) {
	in, _, err := openInput(cmd, name)
	if err != nil {
		return created, err
	}
	defer in.Close()
	body, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return created, fmt.Errorf("read %s: %w", name, err)
	}
	if launch {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(body, &fields); err != nil {
			return created, fmt.Errorf("%s is not a JSON object: %w", name, err)
		}
		fields["launch"] = json.RawMessage("true")
		if body, err = json.Marshal(fields); err != nil {
			return created, err
		}
	}
	return created, c.call(cmd.Context(), http.MethodPost, "/campaigns", body, &created)
}

func campaignCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "campaign", Aliases: []string{"campaigns"}, Short: "Create, follow and steer campaigns"}
	cmd.AddCommand(campaignCreate(c), campaignList(c), campaignGet(c), campaignWatch(c), campaignRate(c), campaignAudit())
	for _, action := range []struct{ name, short string }{
		{"launch", "Launch a draft, now or at its start_at"},
		{"pause", "Hold a campaign where it is"},
		{"resume", "Let a paused campaign go on"},
		{"cancel", "End a campaign; what is under way still ends, and is counted"},
	} {
		cmd.AddCommand(campaignAction(c, action.name, action.short))
	}
	return cmd
}

func campaignCreate(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create FILE",
		Short: "Create the campaign that a file describes, as a draft",
		Long: `Create the campaign that a JSON file describes, as a draft: what belfry send does without launching it. The file holds
what POST /v1/campaigns takes (docs/api.md); "-" reads standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			created, err := createCampaign(cmd, c, args[0], false)
			if err != nil {
				return err
			}
			return show(cmd, created, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func campaignList(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the campaigns, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !asJSON {
				fmt.Fprintln(t, "ID\tSTATE\tCREATED\tNAME")
			}
			for page := (producer.CampaignList{}); ; {
				path := "/campaigns"
				if page.Next != "" {
					path += "?after=" + page.Next
				}
				page = producer.CampaignList{}
				if err := c.call(cmd.Context(), http.MethodGet, path, nil, &page); err != nil {
					return err
				}
				for _, one := range page.Campaigns {
					if asJSON {
						if err := show(cmd, one, true); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", one.ID, one.State, timeOf(one.CreatedAt), one.Name)
				}
				if page.Next == "" {
					return t.Flush()
				}
			}
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// warn says what was wrong at a campaign's launch.
func warn(cmd *cobra.Command, c producer.Campaign) error {
	if c.Warning == "" {
		return nil
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "Warning: %s.\n", c.Warning)
	return err
}

func timeOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func campaignGet(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Show a campaign: its definition and its state",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var one producer.Campaign
			if err := c.call(cmd.Context(), http.MethodGet, pathOf("campaigns", args[0]), nil, &one); err != nil {
				return err
			}
			return show(cmd, one, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func campaignAction(c *client, name, short string) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name + " ID",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in any
			if reason != "" {
				in = producer.Reason{Reason: reason}
			}
			var one producer.Campaign
			if err := c.call(cmd.Context(), http.MethodPost, pathOf("campaigns", args[0], name), in, &one); err != nil {
				return err
			}
			if asJSON {
				return show(cmd, one, true)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Campaign %s is %s.\n", args[0], one.State)
			return errors.Join(err, warn(cmd, one))
		},
	}
	if name == "pause" || name == "cancel" {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it later")
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func campaignWatch(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a campaign's progress until it has ended",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return c.watch(cmd, args[0], asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// watch follows a campaign: bars on a terminal, else a line when something has changed, or JSON lines.
func (c *client) watch(cmd *cobra.Command, id string, asJSON bool) error {
	w := watcher{cmd: cmd, asJSON: asJSON, bars: newBars(cmd.OutOrStdout()), platforms: map[string]bar{}}
	if asJSON || !onTerminal(cmd.OutOrStdout()) {
		w.bars = newBars(io.Discard)
	}
	err := c.follow(cmd.Context(), id, w.show)
	for _, b := range w.platforms {
		b.end()
	}
	w.bars.wait()
	if err != nil {
		return err
	}
	return w.summary()
}

// follow calls each with every progress until the campaign has ended. It takes up a connection that broke.
func (c *client) follow(ctx context.Context, id string, each func(producer.Progress) error) error {
	for {
		ended, err := c.followOnce(ctx, id, each)
		if ended || err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (c *client) followOnce(ctx context.Context, id string, each func(producer.Progress) error) (ended bool, err error) {
	resp, err := c.request(ctx, http.MethodGet, pathOf("campaigns", id, "progress"), http.Header{"Accept": {"text/event-stream"}}, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			event = value
			if event == "end" {
				return true, nil
			}
		case "data":
			var p producer.Progress
			if err := json.Unmarshal([]byte(value), &p); err != nil {
				return false, fmt.Errorf("read progress: %w", err)
			}
			if err := each(p); err != nil {
				return false, err
			}
		}
	}
	return false, nil // the connection broke; the next one goes on
}

type watcher struct {
	cmd       *cobra.Command
	asJSON    bool
	bars      bars
	platforms map[string]bar
	last      producer.Progress
}

func (w *watcher) show(p producer.Progress) error {
	changed := p.Planned != w.last.Planned || p.Pending != w.last.Pending || p.State != w.last.State
	w.last = p
	if w.asJSON {
		return show(w.cmd, p, true)
	}
	if onTerminal(w.cmd.OutOrStdout()) {
		for name, counts := range p.Platforms {
			b, ok := w.platforms[name]
			if !ok {
				b = w.bars.add(name, int64(counts.Planned))
				w.platforms[name] = b
			}
			b.set(int64(counts.Planned-counts.Pending), int64(counts.Planned))
		}
		return nil
	}
	if !changed {
		return nil
	}
	_, err := fmt.Fprintf(w.cmd.OutOrStdout(), "%s %s: %d of %d done, %.0f/s\n",
		p.Campaign, p.State, p.Planned-p.Pending, p.Planned, p.Rate)
	return err
}

// summary prints the books in the end.
func (w *watcher) summary() error {
	if w.asJSON {
		return nil
	}
	p := w.last
	out := w.cmd.OutOrStdout()
	fmt.Fprintf(out, "\nCampaign %s is %s.", p.Campaign, p.State)
	if p.Reason != "" {
		fmt.Fprintf(out, " %s", p.Reason)
	}
	fmt.Fprint(out, "\n\n")
	return printBooks(out, p.Platforms, p.Counts)
}

// printBooks is the ledger as people read it.
func printBooks(out io.Writer, platforms map[string]producer.PlatformProgress, all producer.Counts) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tplanned\taccepted\tunregistered\trejected\texpired\tcancelled\tdead\tpending\t")
	row := func(name string, c producer.Counts) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			name, c.Planned, c.Accepted, c.Unregistered, c.Rejected, c.Expired, c.Cancelled, c.Dead, c.Pending)
	}
	for _, name := range []string{"apns", "fcm", "webpush"} {
		if p, ok := platforms[name]; ok {
			row(name, p.Counts)
		}
	}
	row("all", all)
	return t.Flush()
}
