package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child: what it does costs this process nothing, and what it costs is known.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // a file with all that it writes
	over chan struct{} // closed when it has ended
	err  error         // how; set before over is closed
}

// start starts a program whose log is a file in dir. Its standard input ends with this process.
func start(dir, name string, environ []string, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), log: filepath.Join(dir, name+".log"), over: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BELFRY_") })
	p.cmd.Env = append(own, environ...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	input, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		input.Close()
		close(p.over)
	}()
	return p, nil
}

// stopWithin is how long a child may take to end in good order: what Kubernetes gives it (terminationGracePeriodSeconds).
const stopWithin = 30 * time.Second

// stop ends it with SIGTERM, and returns when it has ended. It may be called again. The error of one that does not stop tells what
// it did instead.
func (p *process) stop() error {
	select {
	case <-p.over:
		return nil
	default:
	}
	told := len(p.logged())
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it has ended by itself, if that fails
	select {
	case <-p.over:
		return nil
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it ends with what each of its goroutines does
		select {
		case <-p.over:
		case <-time.After(stopWithin):
			_ = p.cmd.Process.Kill()
			<-p.over
		}
		since := p.logged()[told:]
		return fmt.Errorf("%s did not stop within %v of SIGTERM. Its log since then:\n%s", p.name, stopWithin, since[:min(len(since), 64<<10)])
	}
}

// stopAll ends processes in the other order.
func stopAll(all []*process) (err error) {
	for i := len(all) - 1; i >= 0; i-- {
		err = errors.Join(err, all[i].stop())
	}
	return err
}

// readyWithin is how long a child may take until it serves.
const readyWithin = 60 * time.Second

// await polls until ready answers true. A child that ends before is an error, with the end of its log.
func (p *process) await(ctx context.Context, ready func() bool) error {
	for began := time.Now(); !ready(); {
		select {
		case <-p.over:
			return fmt.Errorf("%s has ended (%v); its log ends:\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
		if time.Since(began) > readyWithin {
			return fmt.Errorf("%s is not ready after %v; its log ends:\n%s", p.name, readyWithin, p.tail())
		}
	}
	return nil
}

// logged is what it has written so far.
func (p *process) logged() []byte {
	b, _ := os.ReadFile(p.log)
	return b
}

// tail is the end of its log.
func (p *process) tail() string {
	b := p.logged()
	return string(b[max(0, len(b)-2000):])
}

// tick is the unit of /proc/PID/stat: USER_HZ, 100 on every architecture that Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// cpu is the processor time that it has taken so far, to 10 ms.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("the CPU time of %s, which only Linux tells: %w", p.name, err)
	}
	// Behind the name, in brackets, are the state and 10 more fields before utime and stime.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("the CPU time of %s: /proc/%d/stat has %d fields", p.name, p.cmd.Process.Pid, len(fields))
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// machineTime is processor time of the whole machine, in ticks.
type machineTime struct{ all, stolen int64 }

// machineCPU is what has passed since it started: zero where /proc/stat does not tell (proc(5)), as on anything but Linux.
func machineCPU() machineTime {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTime{}
	}
	return parseMachineCPU(b)
}

func parseMachineCPU(stat []byte) (m machineTime) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	// user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted among user and nice already.
	for i, f := range bytes.Fields(line) {
		ticks, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || i > 8 {
			continue // its name
		}
		if m.all += ticks; i == 8 {
			m.stolen = ticks
		}
	}
	return m
}

// stolenSince is the part of the time between that went to other machines on the same hardware.
func (m machineTime) stolenSince(before machineTime) float64 {
	if m.all <= before.all {
		return 0
	}
	return float64(m.stolen-before.stolen) / float64(m.all-before.all)
}

// cpuOf adds up the processor time of some.
func cpuOf(all []*process) (sum time.Duration, err error) {
	for _, p := range all {
		one, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

// peak is the most memory it has had since resetPeak, bytes.
func (p *process) peak() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("the memory of %s, which only Linux tells: %w", p.name, err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("the memory of %s: /proc says no VmHWM", p.name)
}

// resetPeak begins peak anew (proc(5): clear_refs).
func (p *process) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0o200)
}

// tool finds a program of Debian's, also where only root's PATH looks.
func tool(name, pkg string) (string, error) {
	for _, at := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(at); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install %s", name, pkg)
}

// ran is what a program that ended by itself printed, and the processor time it took.
func ran(ctx context.Context, program string, args ...string) (out []byte, cpu time.Duration, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err = cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, faults.String())
	}
	return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}
