package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/stream/datadir"
)

// What a kill leaves at the end of a file is mended, and costs nothing that had been acknowledged.
func TestTornEndsAreMended(t *testing.T) {
	whole := folder(t, true)
	last := func(dir string) int { // bytes of the last batch of the log
		b, err := os.ReadFile(filepath.Join(dir, seg))
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for n := 0; at < len(b); at += n {
			if n = 12 + int(b[at+10])<<8 + int(b[at+11]); at+n >= len(b) {
				return n
			}
		}
		return 0
	}
	for name, d := range map[string]struct {
		do   func(dir string) error
		file string
	}{
		"records being written": {change(seg, func(b []byte) []byte { return append(b, b[:60]...) }), seg},
		"a few bytes":           {change(seg, func(b []byte) []byte { return append(b, b[:5]...) }), seg},
		"index not yet written": {change(idx, short(15)), idx},
		"index being written":   {change(idx, func(b []byte) []byte { return append(b, b[:7]...) }), idx},
		"records and index": {func(dir string) error {
			n := last(dir)
			return errors.Join(change(seg, short(n-30))(dir), change(idx, short(15))(dir))
		}, seg},
		"positions being written": {change("groups.log", func(b []byte) []byte { return append(b, b[:25]...) }), "groups.log"},
		"producers being written": {change("pids.log", func(b []byte) []byte { return append(b, b[:9]...) }), "pids.log"},
	} {
		dir := t.TempDir()
		copyOf(t, whole, dir)
		if err := os.Remove(filepath.Join(dir, "files.json")); err != nil { // the note is of before what was last written
			t.Fatal(err)
		}
		if err := d.do(dir); err != nil {
			t.Fatal(err)
		}
		r := check(t, dir)
		if len(r.Faults) > 0 || !slices.ContainsFunc(r.Tears, func(tear datadir.Tear) bool { return tear.File == d.file }) {
			t.Errorf("%s: faults %v, tears %v", name, r.Faults, r.Tears)
			continue
		}
		// Twice: kfake would write behind a torn entry, and read nothing behind it the next time.
		for range 2 {
			e, adm, client := broker(t, dir)
			got := read(t, e, "log")
			if len(got) != 18 || slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, "false") }) {
				t.Errorf("%s: %q", name, got)
			}
			commitTo(t, adm, position(t, adm)+1)
			killed := t.TempDir()
			copyOf(t, dir, killed)
			client.Close()
			e.Close()
			dir = killed
		}
		e, adm, client := broker(t, dir)
		if at := position(t, adm); at != 12 {
			t.Errorf("%s: position %d", name, at)
		}
		client.Close()
		e.Close()
	}
}
