package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// Fairness measures how long a small campaign takes alone, and when it is launched behind a big one that is under way, in
// another app and in the same.
type Fairness struct {
	// Devices are how many the big campaign goes to, and Small the small one.
	Devices, Small int
	Rounds         int
}

// FairnessReport is what Fairness found.
type FairnessReport struct {
	Name        string       `json:"name"`
	Comparisons []Comparison `json:"comparisons"`

	OtherApp FairnessPair `json:"other_app"`
	SameApp  FairnessPair `json:"same_app"`
	Rounds   int          `json:"rounds"`
	Devices  int          `json:"devices"`
	Small    int          `json:"small"`
}

// FairnessPair is the small campaign's time from the call that launches it to its last arrival: the medians, and all
// rounds'.
type FairnessPair struct {
	Alone   float64   `json:"alone_s"`
	Behind  float64   `json:"behind_s"`
	Ratio   float64   `json:"ratio"`
	Alones  []float64 `json:"alone_rounds_s"`
	Behinds []float64 `json:"behind_rounds_s"`
}

const (
	bigApp   = "big"
	smallApp = "small"
)

// Population implements Scene.
func (f Fairness) Population() simulator.Population {
	return simulator.Population{Seed: 1, Apps: []string{bigApp, smallApp}, Devices: f.Devices}
}

// Run implements Scene.
func (f Fairness) Run(ctx context.Context, s *Stage) (Report, error) {
	if err := s.enrol(ctx, bigApp, f.Devices); err != nil {
		return nil, err
	}
	if err := s.enrol(ctx, smallApp, f.Small); err != nil {
		return nil, err
	}
	// Tokens and connections, and the first code to run.
	for _, app := range []string{bigApp, smallApp} {
		if _, err := f.small(ctx, s, app, "warm"); err != nil {
			return nil, err
		}
	}
	var other, same series
	for round := range f.Rounds {
		for app, into := range map[string]*series{smallApp: &other, bigApp: &same} {
			alone, behind, err := f.pair(ctx, s, app, round)
			if err != nil {
				return nil, err
			}
			s.say("round %d: %.2f s alone, %.2f s behind a campaign to %d devices of app %s", round+1, alone, behind, f.Devices, bigApp)
			into.add(alone, behind)
		}
	}
	return &FairnessReport{
		Name: "fairness", Comparisons: []Comparison{
			other.comparison("s", "behind a campaign of another app", "alone", goal{}),
			same.comparison("s", "behind a campaign of the same app", "alone", goal{}),
		},
		OtherApp: fairnessPair(&other), SameApp: fairnessPair(&same),
		Rounds: f.Rounds, Devices: f.Devices, Small: f.Small,
	}, nil
}

func fairnessPair(s *series) FairnessPair {
	return FairnessPair{
		Alone: median(s.without), Behind: median(s.with), Ratio: s.ratio(), Alones: s.without, Behinds: s.with,
	}
}

// errOver is of a pair that tells nothing.
var errOver = errors.New("the big campaign was over before the small one was: take more devices")

// pairTries is how often a pair is measured until it tells something: a busy machine may hold up the small campaign alone.
const pairTries = 3

// pair is once, until it tells something.
func (f Fairness) pair(ctx context.Context, s *Stage, app string, round int) (alone, behind float64, err error) {
	for try := range pairTries {
		alone, behind, err = f.once(ctx, s, app, fmt.Sprintf("%d-for-%s-%d", round, app, try))
		if !errors.Is(err, errOver) {
			break
		}
	}
	return alone, behind, err
}

// once measures alone and behind the big campaign.
func (f Fairness) once(ctx context.Context, s *Stage, app, id string) (alone, behind float64, err error) {
	if alone, err = f.small(ctx, s, app, "alone-"+id); err != nil {
		return 0, 0, err
	}
	s.Receipts.forget()
	if err := s.launch(ctx, bigApp, "big-"+id, producer.Audience{Everyone: true}); err != nil {
		return 0, 0, err
	}
	// Under way: beyond what a connection's first moments bring.
	if err := s.Receipts.flow(ctx, int64(f.Devices/50)); err != nil {
		return 0, 0, err
	}
	if behind, err = f.small(ctx, s, app, "behind-"+id); err != nil {
		return 0, 0, err
	}
	if s.Receipts.count.Load() >= int64(f.Devices+f.Small) {
		return 0, 0, fmt.Errorf("%d devices: %w", f.Devices, errOver)
	}
	if err := s.cancel(ctx, bigApp, "big-"+id); err != nil {
		return 0, 0, err
	}
	return alone, behind, s.Receipts.quiet(ctx, settle)
}

// small is the seconds that a campaign to an app's first devices takes.
func (f Fairness) small(ctx context.Context, s *Stage, app, id string) (float64, error) {
	devices := make([]string, f.Small)
	for i := range devices {
		devices[i] = deviceID(i)
	}
	began := time.Now()
	if err := s.launch(ctx, app, id, producer.Audience{Devices: devices}); err != nil {
		return 0, err
	}
	arrived, err := s.Receipts.wait(ctx, deliveries(app, id, devices))
	if err != nil {
		return 0, err
	}
	last := began
	for _, at := range arrived {
		if at.After(last) {
			last = at
		}
	}
	return last.Sub(began).Seconds(), nil
}

// Print implements Report.
func (r *FairnessReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "\nA campaign to %d devices, alone and behind one to %d that is under way (median of %d rounds):\n\n", r.Small, r.Devices, r.Rounds)
	for _, p := range []struct {
		name string
		FairnessPair
	}{{"in another app", r.OtherApp}, {"in the same app", r.SameApp}} {
		if _, err := fmt.Fprintf(w, "  %-16s %.2f s alone, %.2f s behind: %.1f times\n", p.name, p.Alone, p.Behind, p.Ratio); err != nil {
			return err
		}
	}
	return nil
}
