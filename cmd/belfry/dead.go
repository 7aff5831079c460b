package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

func deadCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "dead", Short: "Look at dead letters: what was given up, and why"}
	cmd.AddCommand(deadList(c), deadShow(c), deadStats(c))
	return cmd
}

// selector are the flags that say which letters or deliveries are meant.
type selector struct {
	producer.Selector
	since, until string
}

func (s *selector) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&s.Platforms, "platform", nil, "apns, fcm or webpush")
	f.StringSliceVar(&s.Classes, "class", nil, "urgent or bulk")
	f.StringSliceVar(&s.Campaigns, "campaign", nil, "a campaign's id, ~messages or ~rule.NAME")
	f.StringSliceVar(&s.Origins, "origin", nil, "host of web push endpoints or a domain above it; production or sandbox for APNs")
	f.StringSliceVar(&s.Reasons, "reason", nil, "such as exhausted; 4xx and 5xx mean the codes of that class")
	f.StringSliceVar(&s.Codes, "code", nil, "the provider's last word, such as 503")
	f.StringVar(&s.since, "since", "", "ended then or later: a time (RFC 3339), or how long ago (2h)")
	f.StringVar(&s.until, "until", "", "ended before that")
	f.StringSliceVar(&s.Offsets, "offsets", nil, "TOPIC:PARTITION:FIRST-LAST, such as dead.webpush:0:100-200")
}

// parse reads what needs reading. The API looks at the rest.
func (s *selector) parse(now time.Time) (err error) {
	if s.Since, err = moment("since", s.since, now); err != nil {
		return err
	}
	s.Until, err = moment("until", s.until, now)
	return err
}

// moment reads a time, or how long ago it was.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--%s %s: give a time like 2026-11-24T09:30:00Z, or how long ago, like 2h or 45m", flag, text)
	}
	return at, nil
}

// query is the selector as the API takes it in a URL.
func (s *selector) query() url.Values {
	q := url.Values{}
	for name, list := range map[string][]string{
		"platform": s.Platforms, "class": s.Classes, "campaign": s.Campaigns, "origin": s.Origins, "reason": s.Reasons,
		"code": s.Codes, "offsets": s.Offsets,
	} {
		if len(list) > 0 {
			q.Set(name, strings.Join(list, ","))
		}
	}
	if !s.Since.IsZero() {
		q.Set("since", s.Since.Format(time.RFC3339Nano))
	}
	if !s.Until.IsZero() {
		q.Set("until", s.Until.Format(time.RFC3339Nano))
	}
	return q
}

func deadList(c *client) *cobra.Command {
	var s selector
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "Dead letters, by topic and partition, the oldest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.parse(time.Now()); err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !asJSON {
				fmt.Fprintln(t, "WHERE\tDIED\tCAMPAIGN\tDEVICE\tORIGIN\tREASON\tCODE\tATTEMPTS\tREPLAYED")
			}
			err := c.deadLetters(cmd, s.query(), limit, func(l producer.DeadLetter) error {
				if asJSON {
					return show(cmd, l, true)
				}
				again := "-"
				if l.Replayed {
					again = "yes"
				}
				_, err := fmt.Fprintf(t, "%s:%d:%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Topic, l.Partition, l.Offset,
					l.At.Format(time.RFC3339), orDash(l.Campaign), orDash(l.Device), orDash(l.Origin), l.Reason, orDash(l.Code), l.Attempts, again)
				return err
			})
			if err != nil {
				return err
			}
			return t.Flush()
		},
	}
	s.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// deadLetters calls each with the first letters that are meant, page by page.
func (c *client) deadLetters(cmd *cobra.Command, q url.Values, limit int, each func(producer.DeadLetter) error) error {
	for limit > 0 {
		q.Set("limit", fmt.Sprint(min(limit, 1000)))
		var page producer.DeadList
		if err := c.call(cmd.Context(), http.MethodGet, "/dead?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		for _, l := range page.Letters {
			if err := each(l); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		limit -= len(page.Letters)
		q.Set("after", page.Next)
	}
	return nil
}

func deadShow(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show TOPIC:PARTITION:OFFSET",
		Short: "One dead letter; its token and payload are not shown",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			parts := strings.Split(args[0], ":")
			if len(parts) != 3 {
				return fmt.Errorf("%s: give TOPIC:PARTITION:OFFSET, as belfry dead ls prints it", args[0])
			}
			var l producer.DeadLetter
			if err := c.call(cmd.Context(), http.MethodGet, pathOf("dead", parts[0], parts[1], parts[2]), nil, &l); err != nil {
				return err
			}
			return show(cmd, l, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func deadStats(c *client) *cobra.Command {
	var s selector
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "How many dead letters there are, by platform, campaign, origin, reason and code",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.parse(time.Now()); err != nil {
				return err
			}
			var h producer.Histogram
			if err := c.call(cmd.Context(), http.MethodGet, "/dead/stats?"+s.query().Encode(), nil, &h); err != nil {
				return err
			}
			if asJSON {
				return show(cmd, h, true)
			}
			return printHistogram(cmd.OutOrStdout(), &h)
		},
	}
	s.flags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// printHistogram is a histogram as people read it.
func printHistogram(out io.Writer, h *producer.Histogram) error {
	var most uint64
	for _, b := range h.Bars {
		most = max(most, b.Count)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PLATFORM\tCAMPAIGN\tORIGIN\tREASON\tCODE\tCOUNT\tTO SEND\tEXPIRED\tREPLAYED\tUNREADABLE\tOLDEST\tNEWEST\t")
	for _, b := range h.Bars {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n",
			orDash(b.Platform), orDash(b.Campaign), orDash(b.Origin), b.Reason, orDash(b.Code),
			b.Count, b.Send, b.Expired, b.Replayed, b.Unreadable, b.Oldest.Format(time.RFC3339), b.Newest.Format(time.RFC3339),
			strings.Repeat("▇", int((b.Count*20+most-1)/most)))
	}
	fmt.Fprintf(t, "all\t\t\t\t\t%d\t%d\t%d\t%d\t%d\t\t\t\n", h.Count, h.Send, h.Expired, h.Replayed, h.Unreadable)
	if err := t.Flush(); err != nil {
		return err
	}
	if !h.Complete {
		_, err := fmt.Fprintln(out, "\nThere are more: counting took too long. Narrow it by --since, --platform or --offsets.")
		return err
	}
	return nil
}
