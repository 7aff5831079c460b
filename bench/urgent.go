package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
)

// Urgent measures the time from an API call for a transactional message to its arrival at the provider, with nothing else
// to do and during a blast in the same app, on the same credentials.
type Urgent struct {
	// Devices are how many the blast goes to.
	Devices int
	Rounds  int
	// Calls are made in each half of a round, one every Every, whether or not earlier ones have been answered.
	Calls int
	Every time.Duration
}

// UrgentReport is what Urgent found.
type UrgentReport struct {
	Name        string       `json:"name"`
	Comparisons []Comparison `json:"comparisons"`

	IdleP99  float64 `json:"idle_p99_ms"`
	BlastP99 float64 `json:"blast_p99_ms"`
	// Ratio is the median of the rounds' ratios.
	Ratio   float64   `json:"ratio"`
	Rounds  int       `json:"rounds"`
	Devices int       `json:"devices"`
	Calls   int       `json:"calls"`
	Idle    []float64 `json:"idle_ms"`
	Blast   []float64 `json:"blast_ms"`
	// BlastRate is how many of the blast's deliveries arrived a second meanwhile, in each round.
	BlastRate []float64 `json:"blast_per_second"`
}

const benchApp = "bench"

// Population implements Scene.
func (u Urgent) Population() simulator.Population {
	return simulator.Population{Seed: 1, Apps: []string{benchApp}, Devices: u.Devices}
}

// Run implements Scene.
func (u Urgent) Run(ctx context.Context, s *Stage) (Report, error) {
	s.say("registering %d devices", u.Devices)
	if err := s.registerAll(ctx, benchApp, u.Devices); err != nil {
		return nil, err
	}
	r := &UrgentReport{Name: "urgent", Rounds: u.Rounds, Devices: u.Devices, Calls: u.Calls}
	var p series
	// Warms up: connections, tokens, and a Kafka that has compiled nothing yet.
	if _, _, err := u.during(ctx, s, "warm"); err != nil {
		return nil, err
	}
	for round := range u.Rounds {
		s.Receipts.forget()
		idle, err := u.half(ctx, s)
		if err != nil {
			return nil, err
		}
		blast, rate, err := u.during(ctx, s, fmt.Sprintf("blast-%d", round))
		if err != nil {
			return nil, err
		}
		s.say("round %d: p99 %.1f ms idle, %.1f ms during a blast of %.0f/s", round+1, idle, blast, rate)
		p.add(idle, blast)
		r.BlastRate = append(r.BlastRate, rate)
	}
	r.Idle, r.Blast = p.without, p.with
	r.IdleP99, r.BlastP99, r.Ratio = median(r.Idle), median(r.Blast), p.ratio()
	r.Comparisons = []Comparison{p.comparison("ms, p99", "during a blast", "idle", goal{most: 1.5})}
	return r, nil
}

// during is the p99 while a blast goes on, and how fast that went.
func (u Urgent) during(ctx context.Context, s *Stage, id string) (p99, rate float64, err error) {
	if err := s.launch(ctx, benchApp, id, producer.Audience{Everyone: true}); err != nil {
		return 0, 0, err
	}
	if err := s.Receipts.flow(ctx, int64(u.Calls+u.Devices/50)); err != nil {
		return 0, 0, err
	}
	began, before := time.Now(), s.Receipts.count.Load()
	if p99, err = u.half(ctx, s); err != nil {
		return 0, 0, err
	}
	after := s.Receipts.count.Load()
	rate = float64(after-before-int64(u.Calls)) / time.Since(began).Seconds()
	if after-int64(2*u.Calls) >= int64(u.Devices) {
		return 0, 0, fmt.Errorf("the blast of %d devices was over before the %d urgent calls were: take more devices", u.Devices, u.Calls)
	}
	if err := s.cancel(ctx, benchApp, id); err != nil {
		return 0, 0, err
	}
	return p99, rate, s.Receipts.quiet(ctx, settle)
}

// settle is how long nothing must arrive before the next half begins: longer than a lane's commit takes.
const settle = 500 * time.Millisecond

// half makes the calls, at their times, and is the p99 from call to arrival, ms.
func (u Urgent) half(ctx context.Context, s *Stage) (float64, error) {
	var mu sync.Mutex
	var ids []simulator.ID
	var called []time.Time
	tick := time.NewTicker(u.Every)
	defer tick.Stop()
	var calls errgroup.Group
	for i := range u.Calls {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		device := deviceID(i % u.Devices)
		calls.Go(func() error {
			at := time.Now()
			var answer producer.MessageAnswer
			err := s.call(ctx, benchApp, http.MethodPost, "/messages", producer.MessageCall{
				To: producer.Recipients{{Device: device}}, Message: text,
			}, &answer)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, schemas.DeliveryID(benchApp, answer.ID, device, 0))
			called = append(called, at)
			return nil
		})
	}
	if err := calls.Wait(); err != nil {
		return 0, err
	}
	arrived, err := s.Receipts.wait(ctx, ids)
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, len(arrived))
	for i, at := range arrived {
		took[i] = at.Sub(called[i])
	}
	return p99(took), nil
}

// Print implements Report.
func (r *UrgentReport) Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "\nFrom API to provider, p99: %.1f ms idle, %.1f ms during a blast to %d devices at %.0f/s: %.2f times (median of %d rounds of %d calls).\n",
		r.IdleP99, r.BlastP99, r.Devices, median(r.BlastRate), r.Ratio, r.Rounds, r.Calls)
	return err
}
