package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMain turns this binary into one that passes a point three times.
func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_TEST_PASS") != "" {
		for range 3 {
			Hit(Retry)
			_, _ = os.Stdout.WriteString("passed\n")
		}
		return
	}
	os.Exit(m.Run())
}

func TestKillsAtTheNth(t *testing.T) {
	for armed, want := range map[string]string{
		"":              "passed\npassed\npassed\n",
		Polled:          "passed\npassed\npassed\n",
		Retry:           "",
		Retry + ":1":    "",
		Retry + ":3":    "passed\npassed\n",
		Retry + ":4":    "passed\npassed\npassed\n",
		Retry + "d:1":   "passed\npassed\npassed\n",
		Answered + ":2": "passed\npassed\npassed\n",
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "FAILPOINT_TEST_PASS=1", "BELFRY_FAILPOINT="+armed)
		out, err := cmd.Output()
		if string(out) != want {
			t.Errorf("%q: got %q, want %q", armed, out, want)
		}
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != (want != "passed\npassed\npassed\n") {
			t.Errorf("%q: ended with %v", armed, err)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		Hit(Polled)
	}
}
