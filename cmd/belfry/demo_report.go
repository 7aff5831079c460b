package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// stall is the sickness in the middle of the demo, and what the others did meanwhile.
type stall struct {
	sim *simulator.Simulator
	say func(string, ...any)

	began         bool
	before, after simulator.Summary
}

// run lets one web push service stand still once that platform has accepted a fifth of its devices. It returns when that
// is over, or ctx ends.
func (s *stall) run(ctx context.Context, devices int) error {
	for {
		sum, err := s.sim.Summary()
		if err != nil {
			return err
		}
		if answers := sum.ByStatus["webpush"]; answers["201"] >= int64(devices/5) {
			s.before = sum
			break
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return nil
		}
	}
	s.began = true
	s.say("%s, one of the four web push services, stops answering for %v", stallOrigin, stallFor)
	err := s.sim.SetFault("demo", simulator.Fault{
		Kind: simulator.Stall, Platform: "webpush", Origin: stallOrigin, For: simulator.Duration(stallFor),
	})
	if err != nil {
		return err
	}
	if sleep(ctx, stallFor) {
		s.say("%s answers again", stallOrigin)
	}
	s.after, err = s.sim.Summary()
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// accepted counts the receipts of each service.
func accepted(s simulator.Summary) map[string]int64 {
	n := map[string]int64{}
	for origin, answers := range s.ByOrigin {
		if origin != "oauth" {
			n[origin] = answers["200"] + answers["201"]
		}
	}
	return n
}

// demoReport is what the demo says in the end. Its JSON is read by scripts.
type demoReport struct {
	Planned  uint64                       `json:"planned"`
	Outcomes map[string]map[string]uint64 `json:"outcomes"`
	Receipts struct {
		Distinct int64 `json:"distinct"`
		Repeats  int64 `json:"repeats"`
	} `json:"receipts"`
	ElapsedS float64            `json:"elapsed_s"`
	Rates    map[string]float64 `json:"rates"`
	Stall    stallReport        `json:"stall"`
	Agree    bool               `json:"agree"`

	progress   producer.Progress
	byPlatform map[string]int64
	gone       int
	devices    int
}

type stallReport struct {
	Origin  string  `json:"origin"`
	Seconds float64 `json:"seconds"`
	// Accepted counts what each service took while one of them stood still.
	Accepted map[string]int64 `json:"accepted"`
}

func (d *demo) report(p producer.Progress, s *stall, rates map[string]float64) (*demoReport, error) {
	sum, err := d.sim.Summary()
	if err != nil {
		return nil, err
	}
	r := &demoReport{Planned: p.Planned, Outcomes: map[string]map[string]uint64{}, Rates: rates, progress: p, devices: d.devices}
	r.Receipts.Distinct, r.Receipts.Repeats = sum.Distinct, sum.Repeats
	r.byPlatform = map[string]int64{}
	for platform, answers := range sum.ByStatus {
		r.byPlatform[platform] = answers["200"] + answers["201"]
	}
	for name, c := range p.Platforms {
		r.Outcomes[name] = map[string]uint64{
			"accepted": c.Accepted, "unregistered": c.Unregistered, "rejected": c.Rejected,
			"expired": c.Expired, "cancelled": c.Cancelled, "dead": c.Dead, "pending": c.Pending,
		}
	}
	r.Stall = stallReport{Origin: stallOrigin, Accepted: accepted(s.after)}
	if s.began {
		r.Stall.Seconds = stallFor.Seconds()
	}
	for origin, n := range accepted(s.before) {
		r.Stall.Accepted[origin] -= n
	}
	for _, byFate := range d.fates {
		r.gone += byFate[simulator.Gone]
	}
	r.Agree = len(r.disagreements()) == 0
	return r, nil
}

// disagreements compares the ledger with the receipts, and both with the devices that there are.
func (r *demoReport) disagreements() (all []string) {
	differ := func(what string, ledger, truth uint64) {
		if ledger != truth {
			all = append(all, fmt.Sprintf("%s: the ledger has %d, the truth is %d", what, ledger, truth))
		}
	}
	p := r.progress
	differ("planned", p.Planned, uint64(r.devices))
	differ("planned = sum of outcomes", p.Planned, p.Accepted+p.Unregistered+p.Rejected+p.Expired+p.Cancelled+p.Dead)
	differ("pending", p.Pending, 0)
	differ("accepted", p.Accepted, uint64(r.Receipts.Distinct))
	differ("accepted more than once", 0, uint64(r.Receipts.Repeats))
	differ("unregistered", p.Unregistered, uint64(r.gone))
	for name, c := range p.Platforms {
		differ("accepted by "+name, c.Accepted, uint64(r.byPlatform[name]))
	}
	return all
}

// print writes the report, and fails when the ledger and the receipts do not agree.
func (r *demoReport) print(w io.Writer, asJSON bool) error {
	wrong := r.disagreements()
	if asJSON {
		if err := json.NewEncoder(w).Encode(r); err != nil {
			return err
		}
	} else if err := r.printText(w, wrong); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return errSaid
	}
	return nil
}

func (r *demoReport) printText(w io.Writer, wrong []string) error {
	fmt.Fprintf(w, "\nThe ledger:\n\n")
	if err := printBooks(w, r.progress.Platforms, r.progress.Counts); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe providers' receipts: %d deliveries accepted, %d of them more than once.\n", r.Receipts.Distinct, r.Receipts.Repeats)
	if err := r.Stall.printText(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d devices in %.1f s.", r.Planned, r.ElapsedS)
	for _, name := range slices.Sorted(maps.Keys(r.Rates)) {
		fmt.Fprintf(w, " %s %.0f/s.", name, r.Rates[name])
	}
	if len(wrong) == 0 {
		_, err := fmt.Fprint(w, "\n\nThe books balance: every planned delivery has one outcome, and the receipts say the same.\n")
		return err
	}
	fmt.Fprint(w, "\n\nTHE BOOKS DO NOT BALANCE:\n")
	for _, line := range wrong {
		fmt.Fprintln(w, "  "+line)
	}
	return nil
}

func (s stallReport) printText(w io.Writer) error {
	if s.Seconds == 0 {
		_, err := fmt.Fprintln(w, "\nThe campaign was over before a provider could stall: take more devices.")
		return err
	}
	fmt.Fprintf(w, "\nWhile %s stood still for %.0f s, accepted by each:\n\n", s.Origin, s.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, origin := range slices.Sorted(maps.Keys(s.Accepted)) {
		fmt.Fprintf(t, "\t%s\t%d\t\n", origin, s.Accepted[origin])
	}
	return t.Flush()
}
