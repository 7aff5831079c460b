package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/belfry/belfry/simulator"
)

// deviceID is the id of an app's i-th device, as the simulator writes them.
func deviceID(i int) string { return fmt.Sprintf("d-%06d", i) }

// firstLines reads n lines of r, and no further.
func firstLines(r io.Reader, n int) io.Reader {
	in := bufio.NewReaderSize(r, 1<<16)
	lines, w := io.Pipe()
	go func() {
		for range n {
			line, err := in.ReadSlice('\n')
			if err == nil {
				_, err = w.Write(line)
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
		w.Close()
	}()
	return lines
}

// device is one that the simulator knows.
type device struct {
	id      string
	service string // see simulator.Service
	line    []byte
}

// devices are all of an app's.
func (s *Stage) devices(app string) ([]device, error) {
	var all bytes.Buffer
	if err := s.sim.WriteDevices(&all, app); err != nil {
		return nil, err
	}
	var out []device
	for line := range bytes.Lines(all.Bytes()) {
		var d struct {
			ID, Platform string
			APNs         struct{ Environment string }
			WebPush      struct{ Endpoint string }
		}
		if err := json.Unmarshal(line, &d); err != nil {
			return nil, fmt.Errorf("a device of the simulator's: %w", err)
		}
		service := d.Platform
		for _, origin := range []simulator.Service{simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows} {
			if strings.HasPrefix(d.WebPush.Endpoint, s.sim.URL(origin)+"/") {
				service = origin.String()
			}
		}
		out = append(out, device{d.ID, service, line})
	}
	return out, nil
}

// register registers some of an app's devices.
func (s *Stage) register(ctx context.Context, app string, some []device) error {
	var lines bytes.Buffer
	for _, d := range some {
		lines.Write(d.line)
	}
	return s.deployment.register(ctx, app, &lines, len(some))
}

func idsOf(some []device) []string {
	ids := make([]string, len(some))
	for i, d := range some {
		ids[i] = d.id
	}
	return ids
}
