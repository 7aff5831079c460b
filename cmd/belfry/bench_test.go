package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry/belfry/bench"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// TestMain lets the test binary be belfry for the processes that measurements start: go test's own arguments are flags.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// figures measures and gives the report as a program would read it.
func figures(t *testing.T, b bench.Bench) map[string]any {
	t.Helper()
	var said bytes.Buffer
	report, err := measure(t.Context(), b, benchOptions{}, &said)
	if err != nil {
		t.Fatalf("%v, after:\n%s", err, said.String())
	}
	if strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("it said:\n%s", said.String())
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var people bytes.Buffer
	if err := report.Print(&people); err != nil || people.Len() == 0 {
		t.Errorf("%v: %q", err, people.String())
	}
	return got
}

func want(t *testing.T, got map[string]any, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if got[key] == nil {
			t.Errorf("%s is missing in %v", key, got)
		}
	}
}

// A bench whose terminal is gone, or whose output nobody reads any more, leaves no process and no file behind.
func TestBenchEndsWithItsTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts all of Belfry")
	}
	for _, gone := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		t.Run(gone.String(), func(t *testing.T) {
			dir := t.TempDir()
			c := exec.CommandContext(t.Context(), os.Args[0], "bench", "fairness", "--quick")
			c.Env = append(os.Environ(), "TMPDIR="+dir)
			output, err := c.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(output).ReadString('\n'); err != nil { // processes are there
				t.Fatal(err)
			}
			if err := c.Process.Signal(gone); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); c.ProcessState.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit status 1", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
			args, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range args {
				if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(dir)) {
					t.Errorf("it left a process: %q", line)
				}
			}
		})
	}
}

// Each measurement of what one part of the traffic does to another, as small as it can be, comes to its end with figures.
func TestScenes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts all of Belfry twice")
	}
	for name, one := range map[string]struct {
		scene bench.Scene
		keys  []string
	}{
		"fairness": {bench.Fairness{Devices: 10_000, Small: 5, Rounds: 1}, []string{"other_app", "same_app"}},
		"isolation": {
			bench.Isolation{
				Pairs:  []string{"webpush-blackhole", "app-429", "device-429", "message-topic", "half-latency"},
				Rounds: 1, Ticks: 2, Paced: 20, Bursts: 1, Burst: 40,
			},
			[]string{"pairs", "noise"},
		},
	} {
		t.Run(name, func(t *testing.T) { want(t, figures(t, bench.Staged{Scene: one.scene}), one.keys...) })
	}
}

// Each comparison with what Belfry is built on does, too.
func TestContests(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	for _, tool := range []string{"nginx", "nghttpd", "h2load"} {
		if _, err := exec.LookPath(tool); err != nil {
			if _, err := os.Stat("/usr/sbin/" + tool); err != nil {
				t.Skipf("%s is not installed", tool)
			}
		}
	}
	lane := func(p pb.Platform) bench.Lane { return bench.Lane{Platform: p, Rounds: 1, For: 100 * time.Millisecond} }
	for name, b := range map[string]bench.Bench{
		"wire":         bench.Wire{Rounds: 1, For: 100 * time.Millisecond},
		"lane-apns":    lane(pb.Platform_PLATFORM_APNS),
		"lane-fcm":     lane(pb.Platform_PLATFORM_FCM),
		"lane-webpush": lane(pb.Platform_PLATFORM_WEBPUSH),
		"fanout":       bench.Fanout{Devices: 1000, Rounds: 1},
		"end-to-end":   bench.EndToEnd{Devices: 1000, Rounds: 1},
		"urgent":       bench.Urgent{Devices: 10_000, Campaigns: 4, Rounds: 1, Calls: 6, Every: 2 * time.Millisecond},
		"latency":      bench.Latency{Devices: 10_000, Campaigns: 4, Rounds: 1, Calls: 5, Every: 2 * time.Millisecond},
		"growth":       bench.Growth{Sizes: []int{100, 200, 300}, Rounds: 1},
		"scale":        bench.Scale{Lane: lane(pb.Platform_PLATFORM_APNS)},
	} {
		t.Run(name, func(t *testing.T) {
			got := figures(t, b)
			want(t, got, "engine", "baseline", "ratio", "spread", "comparisons", "sides")
			if got["name"] != name {
				t.Errorf("it calls itself %v", got["name"])
			}
		})
	}
}
