package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/belfry/belfry/config"
	_ "github.com/belfry/belfry/fanout"
	_ "github.com/belfry/belfry/ledger"
	_ "github.com/belfry/belfry/senders/apns"
	_ "github.com/belfry/belfry/senders/fcm"
	_ "github.com/belfry/belfry/senders/webpush"
)

// binary is the belfry under test.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "belfry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "belfry")
	args := []string{"build", "-o", binary}
	if raced() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/belfry")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// raced says whether these tests run with the race detector: then so does the binary.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// patience is how long a test waits for what must come. It is a guard against hanging and asserts nothing: it is long
// because the machine may be busy with anything.
const patience = 4 * time.Minute

// until polls for something that must come.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	pause := 10 * time.Millisecond
	for end := time.Now().Add(patience); !there(); pause = min(pause*5/4, 100*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not come in %v", what, patience)
		}
		time.Sleep(pause) // longer and longer, for who asks has the cores before who works
	}
}

// process is one running belfry.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  output
	log  output
	// ended is closed once it has, with err.
	ended chan struct{}
	err   error
}

// environ is the test's own without what is Belfry's, and more.
func environ(more ...string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BELFRY_") })
	// Else each process with the race detector sleeps a second before it ends.
	return append(append(own, "GORACE=atexit_sleep_ms=0"), more...)
}

// seen lets go test see what its result depends on: the roles by their import, and the command, which cannot be imported,
// by being read. Else it would show an old result for a new binary.
var seen = sync.OnceValue(func() error {
	files, err := filepath.Glob("../cmd/belfry/*.go")
	for _, file := range files {
		if _, e := os.ReadFile(file); e != nil {
			err = e
		}
	}
	return err
})

// launch starts belfry. It is killed when the test ends, and its log shown if the test has failed.
func launch(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	return launchAs(t, name, env, exec.Command(binary, args...))
}

// launchAs starts belfry by another command.
func launchAs(t *testing.T, name string, env []string, cmd *exec.Cmd) *process {
	t.Helper()
	if err := seen(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: cmd, ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, &p.out, &p.log
	p.cmd.Dir = t.TempDir() // so that a stray relative path does no harm
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("%s: data race", name)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.log.tail())
		}
	})
	return p
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill is SIGKILL. It fails the test when the process had ended by itself.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatalf("kill %s: %v", p.name, err)
	}
	<-p.ended
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s was not killed: %v", p.name, p.err)
	}
}

// stop is SIGTERM, and waits for an end in good order.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
	p.wait()
	if p.err != nil {
		p.t.Fatalf("%s did not stop in good order: %v", p.name, p.err)
	}
}

// dump ends it, and writes what its goroutines were doing to a file that stays: it is longer than a log should be.
func (p *process) dump() {
	p.t.Helper()
	said := len(p.log.String())
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
	<-p.ended
	f, err := os.CreateTemp("", "belfry-"+p.name+"-goroutines-")
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(p.log.cut(said)); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("goroutines of %s are in %s", p.name, f.Name())
}

// wait waits until it has ended by itself.
func (p *process) wait() {
	p.t.Helper()
	until(p.t, p.name+" ends", func() bool { return !p.running() })
}

// says waits until its log holds all the words.
func (p *process) says(words ...string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s says %q", p.name, words), func() bool { return p.said(words...) })
}

// said looks for one line with all the words.
func (p *process) said(words ...string) bool {
	for line := range strings.Lines(p.log.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// cut takes off what follows the first n bytes.
func (o *output) cut(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := string(o.b.Bytes()[n:])
	o.b.Truncate(n)
	return rest
}

func (o *output) tail() string {
	const most = 8 << 10
	s := o.String()
	return s[max(0, len(s)-most):]
}

// finished is a command that has run to its end.
type finished struct {
	out, log string
	code     int
}

// command runs belfry to its end.
func command(t *testing.T, env []string, args ...string) finished {
	t.Helper()
	if err := seen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, log bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = env, &out, &log, t.TempDir()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("belfry %v: %v, %v\n%s", args, err, ctx.Err(), log.String())
	}
	return finished{out.String(), log.String(), cmd.ProcessState.ExitCode()}
}
