package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/belfry/belfry/message"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

const (
	docsFile  = "../docs/configuration.md"
	docsBegin = "<!-- keys: written by go test ./config -run TestDocs -update -->\n"
	docsEnd   = "<!-- end of keys -->\n"
)

// TestDocs: the documentation lists every key with its default and meaning, as the struct has them.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(b), docsBegin)
	tables, after, ends := strings.Cut(rest, docsEnd)
	if !begins || !ends {
		t.Fatalf("%s lacks %q and %q", docsFile, docsBegin, docsEnd)
	}
	var want strings.Builder
	for _, p := range parts(reflect.ValueOf(*Default()), "", envPrefix, "") {
		p.write(&want)
	}
	if *update {
		if err := os.WriteFile(docsFile, []byte(before+docsBegin+want.String()+docsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if tables != want.String() {
		t.Errorf("%s is not what the struct says; run: go test ./config -run TestDocs -update", docsFile)
	}
}

// TestDocsExamples: each YAML block of the page is a configuration that is taken, when the files and variables that it
// refers to are there.
func TestDocsExamples(t *testing.T) {
	b, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(b), -1)
	if len(blocks) < 3 {
		t.Fatalf("only %d examples were found", len(blocks))
	}
	t.Chdir(t.TempDir())
	for _, block := range blocks {
		text := strings.ReplaceAll(block[1], "/run/secrets/", "")
		var environ []string
		for _, ref := range reference.FindAllString(text, -1) {
			environ = append(environ, strings.Trim(ref, "${}")+"=x")
		}
		for _, file := range regexp.MustCompile(`(?:password|private_key)_file: ([\w.-]+)`).FindAllStringSubmatch(text, -1) {
			_, private := vapidPair(t)
			if err := os.WriteFile(file[1], []byte(private.Reveal()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile("belfry.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load("belfry.yaml", environ); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// TestTags: every key has a meaning, and the variable that the documentation promises.
func TestTags(t *testing.T) {
	known := variables()
	for _, p := range parts(reflect.ValueOf(*Default()), "", envPrefix, "") {
		for _, r := range p.rows {
			if r.doc == "" {
				t.Errorf("%s has no doc", r.path)
			}
			if strings.HasPrefix(r.path, "apps.") || strings.HasPrefix(r.path, "operators[]") {
				continue
			}
			want := envPrefix + strings.ToUpper(strings.ReplaceAll(r.path, ".", "_"))
			if r.env != want || !slices.Contains(known, want) {
				t.Errorf("%s has the variable %q, want %q", r.path, r.env, want)
			}
			known = slices.DeleteFunc(known, func(v string) bool { return v == want })
		}
	}
	if len(known) > 0 {
		t.Errorf("variables without a key: %v", known)
	}
}

// part is a section of the documentation: the keys that stand beside each other.
type part struct {
	path, doc string
	rows      []row
}

type row struct{ path, env, value, doc string }

// parts are the sections in the order of the struct, with NAME for what an app is called.
func parts(v reflect.Value, path, env, doc string) []part {
	own := part{path: path, doc: doc}
	var below []part
	for i := range v.NumField() {
		f := v.Type().Field(i)
		at, doc, t, value := join(path, key(f)), f.Tag.Get("doc"), f.Type, v.Field(i)
		switch {
		case t == reflect.TypeFor[message.Message]() || !section(t):
			own.rows = append(own.rows, row{at, env + f.Tag.Get("env"), defaultText(value), doc})
			continue
		case t.Kind() == reflect.Map:
			t, at = t.Elem(), at+".NAME"
		case t.Kind() == reflect.Slice:
			t, at = t.Elem(), at+"[]"
		}
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if value.Type() != t {
			value = reflect.New(t).Elem()
		}
		below = append(below, parts(value, at, env+f.Tag.Get("envPrefix"), doc)...)
	}
	return append([]part{own}, below...)
}

// markdown escapes what would end a cell or begin a tag.
var markdown = strings.NewReplacer("|", `\|`, "<", "&lt;")

func (p part) write(b *strings.Builder) {
	title := "At the top"
	if p.path != "" {
		title = "`" + p.path + "`"
	}
	fmt.Fprintf(b, "### %s\n\n", title)
	if p.doc != "" {
		fmt.Fprintf(b, "%s.\n", p.doc)
	}
	if p.doc != "" && len(p.rows) > 0 {
		b.WriteString("\n")
	}
	if len(p.rows) > 0 {
		b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	}
	for _, r := range p.rows {
		value := r.value
		if value != "" {
			value = "`" + value + "`"
		}
		name := r.path[strings.LastIndexByte(r.path, '.')+1:]
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, value, markdown.Replace(r.doc))
	}
	b.WriteString("\n")
}

// defaultText is empty for what is left out by default.
func defaultText(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]() && !v.IsZero():
		return v.Interface().(time.Duration).String()
	case v.Kind() == reflect.Bool:
		return fmt.Sprint(v.Bool())
	case v.Kind() == reflect.String:
		return v.String()
	default:
		return ""
	}
}
