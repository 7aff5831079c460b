package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
)

// sample is what one side did in one round.
type sample struct {
	// value is in the contest's unit.
	value float64
	// ops are how many of what is counted were done, and cpu what they cost the side itself.
	ops float64
	cpu time.Duration
	// wall is how long it took, and server the processor time of the server meanwhile.
	wall, server time.Duration
	// allocs are the heap objects made. Negative: not known, for it happened in another process.
	allocs float64
	// stolen is the part of the machine's processor time that its hypervisor gave to other machines.
	stolen float64
}

// metric is a figure that two sides are compared in.
type metric struct {
	name string
	of   func(sample) float64
}

var (
	byValue = metric{"value", func(s sample) float64 { return s.value }}
	byCPU   = metric{"µs of CPU each", func(s sample) float64 { return s.cpu.Seconds() / s.ops * 1e6 }}
	perCPU  = metric{"per CPU second", func(s sample) float64 { return s.ops / s.cpu.Seconds() }}
)

// noAllocs says that they are not known.
const noAllocs = -1.0

// side is one of those that are measured in turns.
type side struct {
	name string
	run  func(ctx context.Context) (sample, error)
}

// contest measures all sides once a round, from the first to the last in one and from the last to the first in the next
// (ABBA), so that neither a machine that slows down nor the one who comes first favours any.
type contest struct {
	unit   string
	rounds int
	sides  []side
	env    *Env

	samples map[string][]sample
	// parts are sides whose samples came with those of another.
	parts []string
}

func (c *contest) run(ctx context.Context) error {
	c.samples = map[string][]sample{}
	for round := range c.rounds {
		sides := slices.Clone(c.sides)
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, s := range sides {
			runtime.GC() // what the last one left is not this one's
			before := machineCPU()
			got, err := c.profiled(ctx, s, round)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", s.name, round+1, err)
			}
			got.stolen = machineCPU().stolenSince(before)
			if !(got.value > 0) || math.IsInf(got.value, 0) {
				return fmt.Errorf("%s, round %d: %v %s cannot be: it was too short to be measured", s.name, round+1, got.value, c.unit)
			}
			c.samples[s.name] = append(c.samples[s.name], got)
			c.env.Say("round %d: %s: %s %s%s", round+1, s.name, figure(got.value), c.unit, stolenText(got.stolen))
		}
	}
	return nil
}

// profiled runs a side, and writes a CPU profile of the engine's first round where the environment asks for one.
func (c *contest) profiled(ctx context.Context, s side, round int) (got sample, err error) {
	if c.env.Profile == "" || round > 0 || s.name != c.sides[0].name {
		return s.run(ctx)
	}
	f, err := os.Create(c.env.Profile)
	if err != nil {
		return got, err
	}
	defer func() { err = joined(err, f.Close) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return got, err
	}
	defer pprof.StopCPUProfile()
	return s.run(ctx)
}

// values are a side's, round by round.
func (c *contest) values(side string, of metric) []float64 {
	all := make([]float64, len(c.samples[side]))
	for i, s := range c.samples[side] {
		all[i] = of.of(s)
	}
	return all
}

// meter measures this process, or others in its place, and the servers that they work against.
type meter struct {
	began    time.Time
	cpu      time.Duration
	allocs   uint64
	server   time.Duration
	measured []*process // none: this process
	servers  []*process
}

// newMeter begins to measure this process.
func newMeter(servers ...*process) (meter, error) { return newMeterOf(nil, servers...) }

// newMeterOf begins to measure other processes.
func newMeterOf(measured []*process, servers ...*process) (m meter, err error) {
	m.measured, m.servers = measured, servers
	if m.server, err = cpuOf(servers); err != nil {
		return m, err
	}
	m.allocs, m.began = allocations(), time.Now()
	m.cpu, err = m.spent()
	return m, err
}

// spent is the processor time of what is measured.
func (m meter) spent() (time.Duration, error) {
	if len(m.measured) > 0 {
		return cpuOf(m.measured)
	}
	return ownCPU(), nil
}

// end is the sample of so many operations since the meter was made. Its value is operations a second.
func (m meter) end(ops int) (sample, error) {
	cpu, err := m.spent()
	s := sample{ops: float64(ops), wall: time.Since(m.began), cpu: cpu - m.cpu, allocs: float64(allocations() - m.allocs)}
	if len(m.measured) > 0 {
		s.allocs = noAllocs
	}
	s.value = s.ops / s.wall.Seconds()
	server, failed := cpuOf(m.servers)
	s.server = server - m.server
	return s, errors.Join(err, failed)
}

// ownCPU is the processor time that this process has taken.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that are wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// allocations are the heap objects that this process has made.
func allocations() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
