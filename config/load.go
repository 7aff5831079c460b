package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads a configuration: the defaults, then the file at path (none when path is empty), then the BELFRY_ variables of
// environ, which is as os.Environ gives it. The error is a Problems with every fault of the whole.
func Load(path string, environ []string) (*Config, error) {
	l := &loader{path: path, config: Default(), tree: &tree{}, environ: make(map[string]string, len(environ))}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		l.environ[name] = value
	}
	if path != "" && !l.file() {
		return nil, l.problems
	}
	l.expand()
	l.anchorPaths()
	l.override()
	l.readSecrets()
	if l.config.Instance == "" {
		l.nameInstance()
	}
	l.problems = append(l.problems, l.config.faults()...)
	if len(l.problems) > 0 {
		l.locate()
		return nil, l.problems
	}
	return l.config, nil
}

type loader struct {
	path     string
	environ  map[string]string
	config   *Config
	tree     *tree
	problems Problems
}

// file reads the YAML. It says false when that leaves nothing to look at further.
func (l *loader) file() bool {
	data, err := os.ReadFile(l.path)
	if err != nil {
		l.problems.add("", "cannot read the configuration: %s", err)
		return false
	}
	return l.yaml(bytes.TrimPrefix(data, []byte("\ufeff"))) // YAML 1.2, 5.2: a byte order mark is no content
}

func (l *loader) yaml(data []byte) bool {
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		l.problems = append(l.problems, l.fault(err))
		return false
	}
	switch {
	case len(parsed.Docs) > 1:
		l.problems = append(l.problems, Problem{File: l.path, Text: "holds several YAML documents; give one"})
		return false
	case len(parsed.Docs) == 0 || parsed.Docs[0].Body == nil || parsed.Docs[0].Body.Type() == ast.NullType:
		return true
	}
	l.tree = newTree(parsed.Docs[0].Body)
	l.problems = append(l.problems, l.tree.problems...)
	// The tree has found unknown keys already, all of them: the decoder's own strictness stops at the first.
	if err := yaml.UnmarshalWithOptions(data, l.config, yaml.UseJSONUnmarshaler()); err != nil {
		l.problems = append(l.problems, l.fault(err))
		l.locate()
		return false
	}
	return true
}

// fault is what the YAML library found, without its drawing of the source, which may hold a secret.
func (l *loader) fault(err error) Problem {
	p := Problem{File: l.path, Text: err.Error()}
	var known yaml.Error
	if errors.As(err, &known) && known.GetToken() != nil {
		p.Text = known.GetMessage()
		p.Line = known.GetToken().Position.Line
		p.Path = l.tree.at(known.GetToken())
	}
	var mismatch *yaml.TypeError
	var shape *yaml.UnexpectedNodeTypeError
	switch {
	case errors.As(err, &mismatch):
		p.Text = "must be " + wanted(mismatch.DstType)
	case errors.As(err, &shape) && shape.Expected == ast.SequenceType:
		p.Text = "must be a list"
	case errors.As(err, &shape) && shape.Expected == ast.MappingType:
		p.Text = "must be a section with keys of its own"
	}
	return p
}

// wanted names a type as people write it.
func wanted(t reflect.Type) string {
	switch {
	case t.String() == "time.Duration":
		return `a duration, such as "30s"`
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Map || t.Kind() == reflect.Struct:
		return "a section with keys of its own"
	case t.Kind() == reflect.String:
		return "a text, in quotes if it holds a colon"
	default:
		return "a number"
	}
}

// locate adds file and line to the faults that stand in the file.
func (l *loader) locate() {
	for i, p := range l.problems {
		if line := l.tree.line(p.Path); p.File == "" && line > 0 {
			l.problems[i].File, l.problems[i].Line = l.path, line
		}
	}
}

// reference is ${NAME}; with another $ before it, it is meant as it stands.
var reference = regexp.MustCompile(`\$?\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// expand puts variables in where the file refers to them.
func (l *loader) expand() {
	replace := func(path, text string) string {
		return reference.ReplaceAllStringFunc(text, func(ref string) string {
			if strings.HasPrefix(ref, "$$") {
				return ref[1:]
			}
			value, ok := l.environ[ref[2:len(ref)-1]]
			if !ok {
				l.problems.add(path, "refers to %s, which is not set; set it, or write $%s for the text itself", ref, ref)
			}
			return value
		})
	}
	walk(reflect.ValueOf(l.config), "", func(f field) {
		switch f.value.Kind() {
		case reflect.String:
			f.value.SetString(replace(f.path, f.value.String()))
		case reflect.Slice:
			for i := range f.value.Len() {
				at := f.value.Index(i)
				at.SetString(replace(fmt.Sprintf("%s[%d]", f.path, i), at.String()))
			}
		}
	})
}

// anchorPaths makes the file's relative paths relative to its folder. Those of variables are relative to the process's.
func (l *loader) anchorPaths() {
	walk(reflect.ValueOf(l.config), "", func(f field) {
		_, here := l.tree.lines[f.path]
		path := f.value.Kind() == reflect.String && (strings.HasSuffix(f.path, "_file") || f.path == "data_dir")
		if here && path && f.value.String() != "" && !filepath.IsAbs(f.value.String()) {
			f.value.SetString(filepath.Join(filepath.Dir(l.path), f.value.String()))
		}
	})
}

// maxSecret bounds a file that is to hold one password or token.
const maxSecret = 64 << 10

// readSecrets fills each Secret from the file named beside it.
func (l *loader) readSecrets() {
	walk(reflect.ValueOf(l.config), "", func(f field) {
		beside := f.parent.FieldByName(f.tag.Name + "File")
		if f.value.Type() != reflect.TypeFor[Secret]() || !beside.IsValid() || beside.String() == "" {
			return
		}
		if f.value.Len() > 0 {
			l.problems.add(f.path, "is given, and %s_file too; give one of them", f.path)
			return
		}
		text, err := readLimited(beside.String(), maxSecret)
		if err != nil {
			l.problems.add(f.path+"_file", "%s", err)
			return
		}
		f.value.SetString(strings.TrimSpace(string(text)))
		if f.value.Len() == 0 {
			l.problems.add(f.path+"_file", "%s is empty", beside.String())
		}
	})
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

func (l *loader) nameInstance() {
	name, err := os.Hostname()
	if err != nil {
		l.problems.add("instance", "is left out, and the host has no name: %s; give it", err)
		return
	}
	l.config.Instance = name
}
