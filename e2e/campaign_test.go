package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/belfry/belfry/producer"
)

// The way of the README, by its own commands, with a devices file that has two bad lines.
func TestFirstCampaign(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 2000, gone: 0.05})
	w.start()

	devices := w.read("sim/demo/devices.ndjson")
	file := w.write("devices.ndjson", devices+`{"id": "bad-token", "apns": {"token": "xyz"}}`+"\n"+`{"id": "bad-json", `+"\n")
	imported := command(t, w.env, "devices", "import", file)
	if imported.code == 0 || !strings.Contains(imported.out, "2000 accepted, 2 refused") {
		t.Errorf("import: exit status %d, %q", imported.code, imported.out)
	}
	for _, want := range []string{"line 2001 refused: apns.token: ", "line 2002 refused: malformed JSON"} {
		if !strings.Contains(imported.log, want) {
			t.Errorf("import does not say %q, but:\n%s", want, imported.log)
		}
	}
	w.registered("demo")

	file = w.write("campaign.json", everyone("winter-sale"))
	lines := strings.Split(strings.TrimSpace(w.belfry("send", file, "--watch", "--json")), "\n")
	var p producer.Progress
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &p); err != nil {
		t.Fatal(err)
	}
	if p.State != "finished" || p.Pending != 0 {
		t.Fatalf("send --watch ended at %+v", p)
	}
	w.balanced(p)
	sum := w.receipts()
	if sum.Repeats != 0 {
		t.Errorf("%d deliveries were repeated", sum.Repeats)
	}
	for name, platform := range p.Platforms {
		if got := taken(sum.ByStatus[name]); got != int64(platform.Accepted) || got == 0 {
			t.Errorf("%s: the ledger has %d accepted, the providers %d", name, platform.Accepted, got)
		}
	}
	if p.Unregistered == 0 {
		t.Fatal("no device was found gone")
	}
	w.hygiene(p.Unregistered)
}

// hygiene waits until just the devices that the providers know no more have left the registry.
func (w *world) hygiene(unregistered uint64) {
	w.t.Helper()
	var left uint64
	until(w.t, "the devices that are gone leave the registry", func() bool {
		left = 0
		for line := range strings.Lines(w.read("sim/demo/devices.ndjson")) {
			var d struct{ ID string }
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				w.t.Fatal(err)
			}
			switch a := w.call("demo", http.MethodGet, "/v1/devices/"+d.ID, ""); a.status {
			case http.StatusOK:
			case http.StatusNotFound:
				left++
			default:
				w.t.Fatalf("device %s: %d %s", d.ID, a.status, a.body)
			}
		}
		return left >= unregistered
	})
	if left != unregistered {
		w.t.Errorf("%d devices have left the registry, and %d are unregistered", left, unregistered)
	}
}
