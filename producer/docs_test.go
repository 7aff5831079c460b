package producer_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/stream/streamtest"
)

// block is one of a page's fenced blocks: what follows its fence, and its text.
type block struct{ info, text string }

var fence = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

func blocks(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var found []block
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		found = append(found, block{m[1], m[2]})
	}
	return found
}

// TestExamplesOfTheDocsWork runs each sh block of docs/api.md, and compares the answer with the block that follows.
func TestExamplesOfTheDocsWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	a := start(t, device("d-1", "ada", onAPNs), device("d-3", "ada"))
	a.launch("")
	streamtest.Run(t, registry.NewApplier(a.kafka, registry.New(a.redis)).Run)
	all := blocks(t, "api.md")
	ran := 0
	for i, b := range all {
		kind, how, _ := strings.Cut(b.info, " ")
		if kind != "sh" || how == "stream" || !strings.Contains(b.text, "curl") {
			continue
		}
		ran++
		script := `set -e; set -o pipefail; curl() { command curl --fail-with-body -sS "$@"; }` + "\n" + b.text
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		cmd.Env = append(os.Environ(), "BELFRY="+a.url, "KEY="+allKey)
		var fault bytes.Buffer
		cmd.Stderr = &fault
		out, err := cmd.Output()
		if (err != nil) != (how == "fails") {
			t.Errorf("%s%v: %s%s", b.text, err, out, &fault)
			continue
		}
		if i+1 == len(all) {
			continue
		}
		switch want := all[i+1]; want.info {
		case "ndjson":
			if string(out) != want.text {
				t.Errorf("%sgot\n%s\nwant\n%s", b.text, out, want.text)
			}
		case "json":
			if got, want := keys(t, out), keys(t, []byte(want.text)); !slices.Equal(got, want) {
				t.Errorf("%sgot %s with %v, want %v", b.text, out, got, want)
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d examples ran", ran)
	}
}

// keys are the names in an object.
func keys(t *testing.T, text []byte) []string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return slices.Sorted(maps.Keys(object))
}

// TestEventOfTheDocsIsRead reads the example of docs/kafka.md.
func TestEventOfTheDocsIsRead(t *testing.T) {
	for _, b := range blocks(t, "kafka.md") {
		if b.info != "json" {
			continue
		}
		if e, err := events.Parse([]byte(strings.TrimSpace(b.text))); err != nil || e.Fields["parcels"].GetNumber() != 2 || e.At == 0 {
			t.Errorf("got %v, %v", e, err)
		}
		return
	}
	t.Error("docs/kafka.md has no JSON example")
}

// TestEveryProblemIsInTheDocs compares the table of docs/api.md with what the API can answer.
func TestEveryProblemIsInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	list := string(source[strings.Index(string(source), "var titles"):])
	names := regexp.MustCompile(`(?m)^\t"([a-z-]+)":`).FindAllStringSubmatch(list[:strings.Index(list, "\n}")], -1)
	if len(names) < 10 {
		t.Fatalf("found %d types", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(text), "| `"+name[1]+"` |") {
			t.Errorf("docs/api.md does not tell of the problem %s", name[1])
		}
	}
}
