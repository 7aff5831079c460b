package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/belfry/belfry/audit"
	"github.com/belfry/belfry/failpoint"
)

// verdict is one invariant with its figures. fails is nil for what this harness only shows.
type verdict struct {
	name    string
	holds   bool
	figures string
}

// stallLimit is I5's.
const stallLimit = 5 * time.Second

// rssLimit is far above what a role takes, and far below what a leak would come to.
const rssLimit = 512 // MiB

type outcome struct {
	options
	skew     time.Duration
	clocks   string
	took     time.Duration
	drained  time.Duration
	settled  bool
	events   []event
	faults   []string
	evidence *evidence
	load     *load
	watch    *watch
	flow     *flow
	// contrasts are how those that were well fared beside sick ones.
	contrasts []*contrast
}

// verdicts states each invariant.
func (o *outcome) verdicts() []verdict {
	e, s := o.evidence, o.evidence.sums()
	repeats, bound, unexplained := e.repeats(o.events)
	var all []verdict
	add := func(name string, holds bool, format string, args ...any) {
		all = append(all, verdict{name, holds, fmt.Sprintf(format, args...)})
	}
	lost := s.notEnded + s.missing
	add("I1 no loss", o.settled && lost == 0 && s.pending == 0 && o.missingMessages() == 0,
		"%d planned; %d accepted, %d expired, %d cancelled, %d dead, %d otherwise; **%d lost**; of %d deliveries promised by the API, %d are missing",
		s.planned, s.accepted, s.expired, s.cancelled, s.dead, s.otherwise, lost, o.load.promised, o.missingMessages())
	add("I2 exactly-once fan-out", e.sentTwice() == 0 && o.wrongAudiences() == 0,
		"%d deliveries of campaigns sent out twice; %d campaigns with another audience than the %d devices there are", e.sentTwice(), o.wrongAudiences(), o.devices)
	add("I3 bounded repeats", len(unexplained) == 0 && repeats <= bound, "%d repeats of %d deliveries, where %d were possible: the most that were in flight or not committed at one moment of each event, and those unanswered%s",
		repeats, s.delivered, bound, list(unexplained))
	add("I4 commit safety", s.endedTwice == 0, "%d deliveries ended twice, after %d kills inside of a commit", s.endedTwice, o.fired("failpoint", "stream.commit"))
	longest, where := longestStall(o.watch.stalls)
	late, shaded := e.afterCancel(o.load, o.events, &o.watch.starved)
	held, _ := longestStall(o.watch.held)
	add("I5 no stall", longest <= stallLimit, "longest without progress while a lane had work and its provider was well: %.1f s (%s). With a breaker that waited for a provider that had been sick: %.1f s",
		longest.Seconds(), where, held.Seconds())
	add("I12 cancel", late == 0, "%d campaigns cancelled; %d receipts later than 2 s after the acknowledgement with nothing broken since it was asked for (%d where something was)",
		o.cancelled(), late, shaded)
	add("I7 bounded memory", o.mostRSS() <= rssLimit, "most resident memory, MiB: %s", o.rss())
	add("I8 delay", e.early+e.hasty == 0, "of %d that came back from a retry topic, %d came before they were due by the clock that decided, by up to %v; providers accepted %d earlier than such a clock is off",
		len(e.due), e.early, e.earliest, e.hasty)
	add("I9 storm guard", s.retries <= int(s.planned), "%d records on retry topics for %d deliveries", s.retries, s.planned)
	add("I10 books", len(s.differences) == 0, "%d runs: the accounts, counted again from the topics and compared with the receipts, differ in %d places%s",
		len(e.reports), len(s.differences), list(first(s.differences, 8)))
	asked := slices.Sorted(maps.Values(o.load.replayed))
	broken := e.replayed.faults(asked, e.sent, e.ofCampaign)
	add("I11 replay", len(broken) == 0, "%d replays, each asked for three times and looked at by a dry run, %d kills at their checkpoints; of %d dead letters %d were sent again, each once, and nothing else%s",
		len(asked), o.fired("failpoint", failpoint.ReplayCheckpoint), len(e.replayed.letters), len(e.replayed.claims), list(first(broken, 8)))
	wrong := o.unreadable()
	add("I13 bad input", wrong == "", "%d unreadable records on each bulk topic, each in one dead letter%s", o.load.garbage, wrong)
	slowest, story := o.flow.slowest(e, &o.watch.starved)
	add("I14 it goes on", slowest <= flowLimit, "of %d deliveries to all services that were asked for when the last fault had ended, without a restart, the last arrived %.1f s later (%s)",
		len(o.flow.samples), slowest.Seconds(), story)
	ratio, noise, each := judge(o.contrasts, e)
	add("I15 what is sick costs what is well nothing", len(o.contrasts) < enoughContrasts || ratio <= contrastMost*max(1, noise),
		"%d times some devices of a service were sick: messages to its others took %.2f of the time just before (two quiet stretches before differ by %.2f; medians)%s%s",
		len(o.contrasts), ratio, noise, map[bool]string{true: ". Too few to judge by"}[len(o.contrasts) < enoughContrasts], list(each))
	if o.rounds > 0 {
		add("Rolling restart", repeats == 0, "%d stops by SIGTERM: %d repeats, %d lost", o.fired("SIGTERM", ""), repeats, lost)
	}
	add("Nothing else", len(o.faults)+len(o.load.strange) == 0, "processes that ended by themselves or did not stop, answers that no fault explains: %d%s",
		len(o.faults)+len(o.load.strange), list(first(append(slices.Clone(o.faults), o.load.strange...), 8)))
	return all
}

func first(lines []string, n int) []string { return lines[:min(n, len(lines))] }

func list(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return ": " + strings.Join(lines, "; ")
}

// missingMessages is how many deliveries the API has promised that are on no topic. Each call was repeated until it was
// answered, so there may be none too many either.
func (o *outcome) missingMessages() int {
	there := 0
	for id, run := range o.evidence.run {
		if run == "~messages" && o.evidence.sent[id] > 0 {
			there++
		}
	}
	return o.load.promised - there
}

// wrongAudiences counts the campaigns that nobody wanted cancelled and that did not reach every device.
func (o *outcome) wrongAudiences() (n int) {
	reports := map[string]*audit.Report{}
	for _, r := range o.evidence.reports {
		reports[r.Run] = r
	}
	for id, c := range o.load.campaigns {
		if !c.asked.IsZero() {
			continue
		}
		planned := uint64(0)
		if r := reports[id]; r != nil {
			for _, p := range r.Platforms {
				planned += p.Topics.Planned
			}
		}
		if planned != uint64(o.devices) {
			n++
		}
	}
	return n
}

func (o *outcome) unreadable() string {
	want := 3 * o.load.garbage
	got := 0
	for _, n := range o.evidence.raw {
		got += n
	}
	// A write that had no answer may have been done all the same.
	if len(o.evidence.raw) < want || got != len(o.evidence.raw) {
		return fmt.Sprintf(": BUT %d of %d have %d letters", len(o.evidence.raw), want, got)
	}
	return ""
}

func longestStall(stalls map[string]stall) (longest time.Duration, where string) {
	where = "none"
	for p, s := range stalls {
		if s.longest > longest {
			longest = s.longest
			where = fmt.Sprintf("%s at %s, after %s, and %.1f s that the machine withheld", p, s.at.Format(time.TimeOnly), strings.TrimSpace(s.after), s.withheld.Seconds())
		}
	}
	return longest, where
}

func (o *outcome) mostRSS() int { return slices.Max(slices.Collect(maps.Values(o.watch.rss))) }

func (o *outcome) rss() string {
	var parts []string
	for _, role := range slices.Sorted(maps.Keys(o.watch.rss)) {
		parts = append(parts, fmt.Sprintf("%s %d", role, o.watch.rss[role]))
	}
	return strings.Join(parts, ", ")
}

// fired counts the events of a kind that are known to have struck.
func (o *outcome) fired(kind, note string) (n int) {
	for _, e := range o.events {
		if e.kind == kind && e.fired && strings.Contains(e.note, note) {
			n++
		}
	}
	return n
}

// print writes the report as Markdown.
func (o *outcome) print(w io.Writer) error {
	s := o.evidence.sums()
	fmt.Fprintf(w, "### %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(w, "`%s`\n\n", o.again())
	fmt.Fprintf(w, "%.0f s of it, then %.0f s until all was done. Kafka: %s. %d devices, %d campaigns (%d cancelled), %d transactional messages, %d registrations; %d deliveries reached a provider, %.0f/s.\n\n",
		o.took.Seconds(), o.drained.Seconds(), map[string]string{"embedded": "the embedded broker", "1": "one broker", "3": "three brokers"}[o.kafka],
		o.devices, len(o.load.campaigns), o.cancelled(), o.load.messages, o.load.devices, s.delivered, float64(s.delivered)/o.took.Seconds())
	o.printEvents(w)
	fmt.Fprint(w, "| | holds | |\n|---|---|---|\n")
	for _, v := range o.verdicts() {
		fmt.Fprintf(w, "| %s | %s | %s |\n", v.name, map[bool]string{true: "yes", false: "**NO**"}[v.holds], v.figures)
	}
	_, err := fmt.Fprintf(w, "\n%s. The providers' clock was %v off. A probe that wants 4 %% of a processor waited %.1f s for it in all, at most %.1f s at once: by so much, over just that time, limits in time are wider. I6 is measured by `belfry bench isolation`.\n",
		o.clocks, o.skew, o.watch.starved.total.Seconds(), o.watch.starved.most.Seconds())
	return err
}

func (o *outcome) cancelled() (n int) {
	for _, c := range o.load.campaigns {
		if !c.cancelled.IsZero() {
			n++
		}
	}
	return n
}

func (o *outcome) printEvents(w io.Writer) {
	type tally struct{ n, fired int }
	kinds := map[string]*tally{}
	for _, e := range o.events {
		name := e.kind
		switch e.kind {
		case "failpoint":
			name += " " + strings.Split(e.note, ":")[0]
		case "network", "provider":
			name += " " + e.note
		}
		if kinds[name] == nil {
			kinds[name] = &tally{}
		}
		kinds[name].n++
		if e.fired {
			kinds[name].fired++
		}
	}
	fmt.Fprint(w, "| event | times | known to have struck |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(w, "| %s | %d | %d |\n", name, kinds[name].n, kinds[name].fired)
	}
	fmt.Fprintln(w)
}
