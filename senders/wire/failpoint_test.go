package wire

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/belfry/belfry/failpoint"
)

// Each point is passed once for each request, so that a harness can strike at the n-th.
func TestFailpoints(t *testing.T) {
	if os.Getenv("BELFRY_FAILPOINT") != "" { // in the child
		c := New(Options{Addr: quick(t, ok), TLS: clientTLS(), MaxConns: 1})
		defer c.Close()
		p := &pump{client: c}
		p.run(pushes(p, 10), 10)
		return
	}
	for _, point := range []string{failpoint.BeforeWrite, failpoint.AfterWrite, failpoint.Answered} {
		for count, dies := range map[string]bool{":1": true, ":10": true, ":11": false} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestFailpoints$")
			cmd.Env = append(os.Environ(), "BELFRY_FAILPOINT="+point+count)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			if killed != dies || !dies && err != nil {
				t.Errorf("%s%s: %v %s", point, count, err, strings.TrimSpace(string(out)))
			}
		}
	}
}
