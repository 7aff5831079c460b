// Package belfry_test holds what is true of the repository as a whole.
package belfry_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/belfry/belfry/"

// mayImport is the one direction of imports: cmd → roles → registry, stream, message → schemas. The key is a package's
// first path element, and the value is what of ours it may import, besides its own subpackages. Roles (producer, fanout,
// senders, ledger, replay) meet on topics, so that any of them can run, stop and be replaced alone.
var mayImport = map[string][]string{
	"schemas":   nil,
	"failpoint": nil,
	"priority":  nil,
	"listen":    nil,
	"simulator": nil, // it is the ground truth of the tests: a shared mistake would hide
	"message":   {"schemas"},
	"events":    {"schemas", "message"},
	"stream":    {"schemas", "failpoint", "listen"},
	"registry":  {"schemas", "stream"},
	"control":   {"schemas", "stream"},
	"lanes":     {"schemas", "stream"},
	"health":    {"schemas", "stream", "registry", "lanes"}, // of any process, whatever its roles
	"letters":   {"schemas", "stream"},                      // of dead letters, for producer and replay
	"producer":  {"schemas", "stream", "registry", "control", "lanes", "health", "letters", "message", "events"},
	"fanout":    {"schemas", "stream", "registry", "control", "lanes", "message", "events"},
	"senders":   {"schemas", "stream", "control", "message", "failpoint"},
	"ledger":    {"schemas", "stream", "control"},
	"replay":    {"schemas", "stream", "letters", "failpoint"},
	"config":    {"schemas", "stream", "registry", "message"},
	"e2e":       nil, // tests alone
	"audit":     {"schemas", "stream", "letters"},
	"soak":      {"schemas", "failpoint", "stream", "lanes", "audit", "simulator", "producer"}, // the harness: no part of the product
	// Drives all from outside, and the lanes and the wire by themselves: no part of the product.
	"bench": {"schemas", "simulator", "message", "stream", "registry", "producer", "senders", "priority"},
	"cmd": {
		"schemas", "simulator", "message", "events", "stream", "registry", "producer", "fanout", "senders", "ledger", "audit",
		"letters", "replay",
		"control", "lanes", "health", "config", "bench", "priority", "listen",
	},
}

func TestImportsGoOneWay(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || path == "tools") {
			return filepath.SkipDir
		}
		// Tests may look across: a lane is tested against the simulator.
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		checkImports(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go file was looked at")
	}
}

func checkImports(t *testing.T, path string) {
	own, _, _ := strings.Cut(filepath.ToSlash(path), "/")
	allowed, known := mayImport[own]
	if !known {
		t.Errorf("%s: package %s is not in the table of this test; say there what it may import", path, own)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil || !strings.HasPrefix(imported, module) {
			continue
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(imported, module), "/")
		if top != own && !slices.Contains(allowed, top) {
			t.Errorf("%s imports %s: %s may import only %q of ours", path, imported, own, allowed)
		}
	}
}
