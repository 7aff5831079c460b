package simulator

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Every fault in docs/simulator.md is one that can be set, and every kind and service is in it.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, kind := range kinds {
		if !strings.Contains(text, "| `"+string(kind)+"` |") {
			t.Errorf("kind %s is not explained", kind)
		}
	}
	for _, name := range serviceNames {
		if !strings.Contains(text, "| `"+name+"` |") {
			t.Errorf("service %s is not listed", name)
		}
	}
	s := start(t, nil)
	_, examples, _ := strings.Cut(text, "```json\n")
	examples, _, _ = strings.Cut(examples, "```")
	set := 0
	for line := range strings.SplitSeq(strings.TrimSpace(examples), "\n") {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		var f Fault
		if err := dec.Decode(&f); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if err := s.SetFault("f", f); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		set++
	}
	if set == 0 {
		t.Error("no example was found")
	}
}
