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
	set := 0
	for block := range strings.SplitSeq(text, "```json\n") {
		examples, _, found := strings.Cut(block, "\n```")
		if !found || !strings.HasPrefix(examples, "{") {
			continue // what comes before the first, or between
		}
		if strings.HasPrefix(examples, "{\n") {
			all, err := ReadFaults(strings.NewReader(examples))
			if err != nil || len(all) == 0 {
				t.Errorf("%s: %v", examples, err)
			}
			if err := s.setFaults(all); err != nil {
				t.Error(err)
			}
			continue
		}
		for line := range strings.SplitSeq(examples, "\n") {
			dec := json.NewDecoder(strings.NewReader(line))
			dec.DisallowUnknownFields()
			var f Fault
			if err := dec.Decode(&f); err != nil {
				t.Errorf("%s: %v", line, err)
			} else if err := s.SetFault("f", f); err != nil {
				t.Errorf("%s: %v", line, err)
			}
			set++
		}
	}
	if set < 15 {
		t.Errorf("only %d examples were found", set)
	}
}
