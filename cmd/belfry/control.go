package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/producer"
)

// steerCommands hold traffic back, and show where it stands.
func steerCommands() []*cobra.Command {
	c := &client{}
	commands := append([]*cobra.Command{lanesCommand(c)}, restraintCommands(c)...)
	for _, cmd := range commands {
		c.flags(cmd)
	}
	return commands
}

func lanesCommand(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lanes",
		Short: "Where each lane stands, and what is held back",
		Long: `Where each lane stands: how much it has to do, how fast it does it, and which destinations do not take what is theirs,
why, and until when. Then what operators, or Belfry itself, hold back. With an app's key: its own destinations. With an
operator's: processes that were told otherwise than the one that answers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var lanes producer.LaneList
			if err := c.call(cmd.Context(), http.MethodGet, "/lanes", nil, &lanes); err != nil {
				return err
			}
			var held producer.RestraintList
			if err := c.call(cmd.Context(), http.MethodGet, "/control", nil, &held); err != nil {
				return err
			}
			if asJSON {
				return show(cmd, struct {
					producer.LaneList
					producer.RestraintList
				}{lanes, held}, true)
			}
			return errors.Join(printLanes(cmd.OutOrStdout(), lanes.Lanes), printDestinations(cmd.OutOrStdout(), lanes.Lanes),
				printHeld(cmd.OutOrStdout(), lanes.Held), printProcesses(cmd.OutOrStdout(), lanes.Processes), printRestraints(cmd.OutOrStdout(), held.Restraints))
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printLanes(out io.Writer, lanes []producer.Lane) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LANE\tINSTANCES\tBACKLOG\tRETRYING\tDONE/S\tOLDEST\tIN FLIGHT\tDESTINATIONS")
	for _, l := range lanes {
		open := 0
		for _, d := range l.Destinations {
			if d.State == "open" {
				open++
			}
		}
		instances, oldest := strconv.Itoa(l.Instances), "unknown"
		if l.Instances == 0 {
			instances = "no process"
		}
		if l.OldestSeconds != nil {
			oldest = seconds(*l.OldestSeconds).Round(100 * time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.0f\t%s\t%d\t%d of %d open\n",
			l.Lane, instances, countOf(l.Backlog), countOf(l.Retrying), l.DrainRate, oldest, l.InFlight, open, len(l.Destinations))
	}
	return t.Flush()
}

func countOf(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatUint(*n, 10)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// failingFrom is which part of a destination's answers must fail for it to be listed.
const failingFrom = 0.01

// printDestinations lists those that are not open, are slow, fail in part, keep to a rate, or have deliveries waiting elsewhere.
func printDestinations(out io.Writer, lanes []producer.Lane) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "\nLANE\tDESTINATION\tSTATE\tPARKED\tREASON\tSINCE\tUNTIL\tRATE\n"
	for _, l := range lanes {
		for _, d := range l.Destinations {
			if d.State == "open" && d.Parked == 0 && !d.Slow && d.Failing < failingFrom && d.PerMinute == 0 {
				continue
			}
			state := d.State
			if d.State == "open" && d.Failing >= failingFrom {
				state += fmt.Sprintf(", %.0f %% fails", 100*d.Failing)
				d.Reason = d.FailingCode
			}
			if d.Slow {
				state += ", slow"
				d.Reason = cmp.Or(d.Reason, fmt.Sprintf("answers in %.1f s", float64(d.LatencyMs)/1000))
			}
			fmt.Fprintf(t, "%s%s\t%s/%s\t%s\t%d\t%s\t%s\t%s\t%s\n", head, l.Lane, d.App, d.Name, state, d.Parked,
				cmp.Or(d.Reason, "-"), timeOf(d.Since), timeOf(d.Until), rateOf(d))
			head = ""
		}
	}
	return t.Flush()
}

// rateOf is what a destination takes a minute, since when, and how long what waits for it takes.
func rateOf(d producer.Destination) string {
	if d.PerMinute == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f/min since %s, done in %s", d.PerMinute, timeOf(d.PerMinuteSince), seconds(d.DrainsIn).Round(time.Second))
}

// printHeld tells of events that wait.
func printHeld(out io.Writer, held []producer.Held) error {
	if len(held) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPLATFORM\tEVENTS THAT WAIT\tREASON")
	for _, h := range held {
		fmt.Fprintf(t, "%s\t%d\tno process of the role trigger knows the rules of their app\n", h.Platform, h.Events)
	}
	return t.Flush()
}

// printProcesses lists those that were told otherwise than the one that answers.
func printProcesses(out io.Writer, processes []producer.Process) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := "\nTOLD OTHERWISE\tROLES\tVERSION\tWHAT DIFFERS FROM THE PROCESS THAT ANSWERS\n"
	for _, p := range processes {
		if len(p.Differs) == 0 {
			continue
		}
		fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\n", head, p.Instance, strings.Join(p.Roles, ","), p.Version, strings.Join(p.Differs, "; "))
		head = ""
	}
	return t.Flush()
}

func printRestraints(out io.Writer, held []producer.Restraint) error {
	if len(held) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nHELD BACK\tHOW\tBY\tSINCE\tREASON")
	for _, r := range held {
		how := "paused"
		if !r.Paused {
			how = strconv.FormatFloat(r.PerSecond, 'f', -1, 64) + "/s"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Name, how, r.By, timeOf(r.At), cmp.Or(r.Reason, "-"))
	}
	return t.Flush()
}

// restraintCommands pause, slow down and resume one kind of part of the traffic.
func restraintCommands(c *client) []*cobra.Command {
	one := func(scope, what, form, example string) *cobra.Command {
		verbs := "Pause, slow down and resume "
		if scope == "hygiene" {
			verbs = "Pause and resume "
		}
		cmd := &cobra.Command{
			Use:   scope,
			Short: verbs + what,
			Long: verbs + what + `. It takes effect within two seconds, also on what is on the topics
already, outlives restarts, and lasts until it is resumed. What is held back is listed by belfry lanes.`,
		}
		cmd.AddCommand(restrainCommand(c, scope, "pause", form, example), restrainCommand(c, scope, "resume", form, example))
		if scope != "hygiene" {
			cmd.AddCommand(restrainCommand(c, scope, "rate", form, example))
		}
		return cmd
	}
	return []*cobra.Command{
		one("lane", "a lane: all traffic of a platform and class (with an operator's key)", "PLATFORM/CLASS", "webpush/bulk"),
		one("app", "an app on all platforms", "APP", "shop"),
		one("destination", "an app at one destination, as belfry lanes names them", "PLATFORM/APP/NAME", "apns/shop/production"),
		one("hygiene", "the removal of an app's devices that a provider does not know", "PLATFORM/APP", "fcm/shop"),
	}
}

func restrainCommand(c *client, scope, verb, form, example string) *cobra.Command {
	var reason string
	short := map[string]string{"pause": "Send nothing of it", "resume": "Go on, without a limit", "rate": "Send at most so many a second"}[verb]
	cmd := &cobra.Command{
		Use: verb + " " + form, Short: short, Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  belfry %s %s %s", scope, verb, example),
	}
	if verb == "rate" {
		cmd.Use, cmd.Args = cmd.Use+" PER_SECOND", cobra.ExactArgs(2)
		cmd.Example += " 500"
	}
	if scope == "hygiene" {
		cmd.Short = map[string]string{"pause": "Remove no device", "resume": "Go on removing devices"}[verb]
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := control.Parse(scope + "/" + args[0])
		if err != nil {
			return err
		}
		if verb == "resume" {
			if err := c.call(cmd.Context(), http.MethodDelete, restraintPath(name), nil, nil); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s goes on.\n", name)
			return err
		}
		in := map[string]any{"reason": reason}
		said := "is paused"
		if verb == "pause" {
			in["paused"] = true
		} else {
			rate, err := parseRate(args[1])
			if err != nil {
				return err
			}
			in["per_second"], said = rate, "sends at most "+args[1]+" a second"
		}
		if err := c.call(cmd.Context(), http.MethodPut, restraintPath(name), in, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s. To go on: belfry %s resume %s\n", name, said, scope, args[0])
		return err
	}
	if verb != "resume" {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it later")
	}
	return cmd
}

// restraintPath is where the API has a part of the traffic. What comes last may hold a "/".
func restraintPath(name control.Name) string {
	parts := strings.SplitN(string(name), "/", 4)
	if parts[0] != "hygiene" {
		parts[0] += "s"
	}
	return pathOf(append([]string{"control"}, parts...)...)
}

func parseRate(s string) (float64, error) {
	rate, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || rate < 0 {
		return 0, fmt.Errorf("%q is no rate: give a number a second, such as 500", s)
	}
	return rate, nil
}

func campaignRate(c *client) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rate ID PER_SECOND",
		Short: "Change how fast a campaign goes, also while it runs; 0 lifts its limit",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := parseRate(args[1])
			if err != nil {
				return err
			}
			var one producer.Campaign
			if err := c.call(cmd.Context(), http.MethodPost, pathOf("campaigns", args[0], "rate"), producer.Rate{PerSecond: rate}, &one); err != nil {
				return err
			}
			if asJSON {
				return show(cmd, one, true)
			}
			pace := "as fast as its lanes drain"
			if one.Pace != nil {
				pace = "at " + strconv.FormatFloat(one.Pace.PerSecond, 'f', -1, 64) + " a second"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Campaign %s is %s and goes %s.\n", args[0], one.State, pace)
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
