package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// The table in docs/performance.md stands between these.
const (
	tableBegin = "<!-- table: written by make bench -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// WriteTable puts the results, one JSON object a line, as a Markdown table between a document's markers, with a line that
// says where they were made.
func WriteTable(doc []byte, results io.Reader, where string) ([]byte, error) {
	before, rest, ok := bytes.Cut(doc, []byte(tableBegin))
	_, after, found := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !found {
		return nil, fmt.Errorf("the document has no line %q with a line %q after it", strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	var table bytes.Buffer
	table.WriteString("| bench | of | engine | baseline | ratio (rounds) | goal | | CPU s a million: engine, baseline | allocations each | server: share, cores |\n")
	table.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	lines := bufio.NewScanner(results)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("a result: %w", err)
		}
		if r.Name == "" {
			return nil, errors.New("a result has no name: give the lines that belfry bench NAME --json prints")
		}
		r.rows(&table)
	}
	fmt.Fprintf(&table, "\n%s\n", where)
	return slices.Concat(before, []byte(tableBegin), table.Bytes(), []byte(tableEnd), after), lines.Err()
}

// rows writes one for each comparison.
func (r *Result) rows(w io.Writer) {
	sides := map[string]Side{}
	for _, s := range r.Sides {
		sides[s.Name] = s
	}
	for _, c := range r.Comparisons {
		engine := sides[c.Side]
		mark := "✓"
		if !c.Reached {
			mark = "✗"
		}
		if c.Goal == noGoal {
			mark = ""
		}
		allocs, server := "", ""
		if engine.Allocs != nil {
			allocs = figure(*engine.Allocs)
		}
		if engine.ServerBusy > 0 {
			server = fmt.Sprintf("%.0f %%, %.2f", 100*engine.ServerShare, engine.ServerBusy)
		}
		var cpu []string
		for _, s := range []Side{engine, sides[c.Baseline]} {
			if s.CPU > 0 {
				cpu = append(cpu, figure(s.CPU))
			}
		}
		fmt.Fprintf(w, "| `%s` | %s | %s: %s | %s: %s | %.3g (%.3g to %.3g) | %s | %s | %s | %s | %s |\n",
			r.Name, c.Of, c.Side, figure(c.Engine), c.Baseline, figure(c.Value), c.Ratio, c.Spread[0], c.Spread[1], c.Goal, mark,
			strings.Join(cpu, ", "), allocs, server)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
