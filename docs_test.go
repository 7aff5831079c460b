package belfry_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
)

var update = flag.Bool("update", false, "write the messages of docs/records.md anew")

// readPages returns what people read, by path.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, path := range append(paths, "README.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[path] = string(text)
	}
	return pages
}

var (
	fence    = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")
	link     = regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]+))?\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	unlinked = regexp.MustCompile("[^a-z0-9 _-]")
)

func TestLinksOfTheDocsLeadSomewhere(t *testing.T) {
	pages := readPages(t)
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			target, anchor := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link to %s: %v", page, target, err)
			}
			if anchor != "" && !slices.Contains(anchors(pages[path]), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, path, anchor)
			}
		}
	}
}

// anchors are what a forge makes of a page's headings.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(unlinked.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

var (
	// A command line: perhaps with variables before it, up to a comment, a pipe or a redirection.
	commandLine = regexp.MustCompile(`(?m)^(?:[A-Z_]+=\S+ )*(?:\./)?(belfry [^#|<>&\n]+)`)
	usage       = regexp.MustCompile(`Usage:\n  (belfry(?: [a-z]+)*)(.*)`)
)

// With --help the flags before it are read, and nothing is done.
func TestCommandsOfTheDocsAreBelfrys(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "belfry")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/belfry").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	lines := map[string]string{}
	for page, text := range readPages(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] != "" && block[1] != "sh" {
				continue
			}
			for _, m := range commandLine.FindAllStringSubmatch(block[2], -1) {
				lines[strings.TrimSpace(m[1])] = page
			}
		}
	}
	for line, page := range lines {
		out, err := exec.CommandContext(t.Context(), binary, append(strings.Fields(line)[1:], "--help")...).CombinedOutput()
		m := usage.FindStringSubmatch(string(out))
		if err != nil || m == nil || !strings.HasPrefix(line, m[1]) || strings.Contains(m[2], "[command]") {
			t.Errorf("%s: %s: %v\n%s", page, line, err, out)
		}
	}
	if len(lines) < 10 {
		t.Errorf("only %d command lines were found", len(lines))
	}
}

func TestCampaignsOfTheReadmeAreTaken(t *testing.T) {
	found := regexp.MustCompile(`(?s)(?:--json '|<<'END'\n)(\{.*?\n\})`).FindAllStringSubmatch(readPages(t)["README.md"], -1)
	if len(found) != 2 {
		t.Fatalf("%d campaigns were found", len(found))
	}
	for _, m := range found {
		d := json.NewDecoder(strings.NewReader(m[1]))
		d.DisallowUnknownFields()
		var c producer.CampaignDefinition
		if err := d.Decode(&c); err != nil {
			t.Errorf("%v: %s", err, m[1])
			continue
		}
		p, err := c.Message.Proto()
		if err == nil {
			_, err = message.Compile(p, message.Campaign)
		}
		if err == nil && c.Audience.Filter != "" {
			_, err = registry.CompileFilter(c.Audience.Filter)
		}
		if err != nil {
			t.Errorf("%v: %s", err, m[1])
		}
	}
}

var topicRow = regexp.MustCompile("(?m)^\\| `belfry\\.([^`]+)` \\| [^|]+ \\| [^|]+ \\| (\\d+) \\| (compact|\\d+ d) \\|")

// The table of docs/records.md is the topic plan: <platform>, <class> and <tier> stand for each of them.
func TestEveryTopicIsInTheDocs(t *testing.T) {
	told, planned := map[string]string{}, map[string]string{}
	for _, m := range topicRow.FindAllStringSubmatch(readPages(t)["docs/records.md"], -1) {
		for _, p := range schemas.Platforms {
			for _, c := range schemas.Classes {
				for _, tier := range schemas.Tiers {
					names := strings.NewReplacer("<platform>", schemas.PlatformName(p), "<class>", schemas.ClassName(c), "<tier>", tier.Name)
					told[names.Replace(m[1])] = m[2] + " " + m[3]
				}
			}
		}
	}
	for _, topic := range schemas.Plan() {
		kept := "compact"
		if topic.Cleanup == schemas.Delete {
			kept = fmt.Sprintf("%.0f d", topic.Retention.Hours()/24)
		}
		planned[topic.Name] = fmt.Sprintf("%d %s", topic.Partitions, kept)
	}
	if !maps.Equal(told, planned) {
		t.Errorf("docs/records.md tells of\n%v\nand the plan is\n%v", told, planned)
	}
}

const (
	recordsPage  = "docs/records.md"
	recordsBegin = "<!-- messages: written by make generate -->\n"
)

// docs/records.md ends with every message as the .proto files, comments included, have it.
func TestEveryRecordIsInTheDocs(t *testing.T) {
	before, got, found := strings.Cut(readPages(t)[recordsPage], recordsBegin)
	if !found {
		t.Fatalf("%s lacks %q", recordsPage, recordsBegin)
	}
	var want strings.Builder
	for _, file := range []string{"device", "message", "campaign", "delivery", "ledger", "event", "lane", "replay"} {
		text, err := os.ReadFile("schemas/belfry/v1/" + file + ".proto")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "\n## %s.proto\n", file)
		writeRecords(&want, string(text))
	}
	if *update {
		if err := os.WriteFile(recordsPage, []byte(before+recordsBegin+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want.String() {
		t.Errorf("%s is not what the .proto files say; run: make generate", recordsPage)
	}
}

var (
	protoBegin = regexp.MustCompile(`^(?:message|enum) (\w+) \{`)
	protoField = regexp.MustCompile(`^(?:(.+) )?(\w+) = (\d+);$`)
	inTable    = strings.NewReplacer("|", `\|`, "<", "&lt;")
)

// writeRecords writes a table for each message and enum. It reads the form that buf lint and this project's files keep
// to: a line for each thing, its comment before it.
func writeRecords(w *strings.Builder, proto string) {
	comment, oneOf := "", ""
	for line := range strings.Lines(proto) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "oneof ") {
			oneOf = "one of: "
		} else if line == "}" {
			oneOf = ""
		}
		if text, ok := strings.CutPrefix(line, "// "); ok {
			comment = strings.TrimSpace(comment + " " + text)
			continue
		}
		if m := protoBegin.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(w, "\n### %s\n\n", m[1])
			if comment != "" {
				fmt.Fprintf(w, "%s\n\n", inTable.Replace(comment))
			}
			if strings.HasSuffix(line, "{}") {
				fmt.Fprint(w, "It has no fields.\n")
			} else {
				fmt.Fprint(w, "| | field | type | |\n|---|---|---|---|\n")
			}
		} else if m := protoField.FindStringSubmatch(line); m != nil {
			kind := ""
			if m[1] != "" {
				kind = oneOf + "`" + m[1] + "`"
			}
			fmt.Fprintf(w, "| %s | `%s` | %s | %s |\n", m[3], m[2], kind, inTable.Replace(comment))
		}
		comment = ""
	}
}
