package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one belfry, or a broker of ours, that can be struck. Its methods may be called from one goroutine at a time,
// but for pid.
type process struct {
	name string
	args []string
	env  []string
	dir  string

	mu    sync.Mutex // guards cmd
	cmd   *exec.Cmd
	ended chan struct{}
}

// start runs it, with more in its environment. Its log is kept over restarts.
func (p *process) start(more ...string) error {
	log, err := os.OpenFile(filepath.Join(p.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- start %s %v\n", time.Now().Format(time.TimeOnly), more)
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env = append(append(os.Environ(), p.env...), more...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, p.dir
	// A Ctrl-C is for the harness, which stops them in its own order; and none outlives it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState tells
		close(ended)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.ended = cmd, ended
	return nil
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// wait waits for its end, and says whether it came.
func (p *process) wait(limit time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended

// kill is SIGKILL. It returns once the process is gone.
func (p *process) kill() {
	if p.running() {
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// stopTime is how long a stop in good order may take: a drain of 5 s, a commit, and a machine that is busy.
const stopTime = 25 * time.Second

// errSlow is what a process that is stopped did.
var errSlow = errors.New("did not end after SIGTERM")

// stop is SIGTERM. Its error says that it did not end in good order.
func (p *process) stop() error {
	if !p.running() {
		return nil
	}
	p.signal(syscall.SIGTERM)
	if !p.wait(stopTime) {
		p.kill()
		return fmt.Errorf("%s %w within %v, and was killed", p.name, errSlow, stopTime)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 && p.killedBy() != syscall.SIGTERM {
		return fmt.Errorf("%s ended with %v after SIGTERM", p.name, p.cmd.ProcessState)
	}
	return nil
}

// killedBy is the signal that ended it, or 0.
func (p *process) killedBy() syscall.Signal {
	if p.running() || p.cmd == nil {
		return 0
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return 0
}

// rss is its resident memory in MiB, or 0 when it does not run.
func (p *process) rss() int {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return 0
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0]) // the kernel's own form
			return kib / 1024
		}
	}
	return 0
}

// command runs one to its end and returns its output.
func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), dir
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %v: %w\n%s%s", name, args, err, out.String(), problem.String())
	}
	return strings.TrimSpace(out.String()), nil
}
