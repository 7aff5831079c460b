package datadir_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/datadir"
)

const seg, idx = "partitions/log-0/0.dat", "partitions/log-0/0.idx"

// A folder that nothing is wrong with is taken, again and again, and holds what was in it.
func TestSound(t *testing.T) {
	for _, killed := range []bool{false, true} {
		dir := folder(t, killed)
		r := check(t, dir)
		if err := r.Err(); err != nil {
			t.Fatalf("killed %v: %v", killed, err)
		}
		if r.Topics != 2 || r.Partitions != 4 || r.Positions != 2 || (r.Stop == datadir.Orderly) == killed || len(r.Tears) > 0 {
			t.Errorf("killed %v: %+v", killed, r)
		}
		for range 2 {
			e, adm, client := broker(t, dir)
			if got := read(t, e, "log"); len(got) != 18 || slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, "false") }) {
				t.Errorf("killed %v: %d values: %q", killed, len(got), got)
			}
			if at := position(t, adm); at != 10 {
				t.Errorf("killed %v: position %d", killed, at)
			}
			client.Close()
			e.Close()
		}
	}
}

func TestEmptyFolder(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "not yet")} {
		if r := check(t, dir); !r.Empty || r.Err() != nil {
			t.Errorf("%+v", r)
		}
	}
}

func change(path string, f func(b []byte) []byte) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, path)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, f(b), 0o600)
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 0x20
		return b
	}
}

func short(by int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-by] } }

func gone(path string) func(dir string) error {
	return func(dir string) error { return os.RemoveAll(filepath.Join(dir, path)) }
}

func swap(a, b string) func(dir string) error {
	return func(dir string) error {
		a, b, c := filepath.Join(dir, a), filepath.Join(dir, b), filepath.Join(dir, "swapping")
		return errors.Join(os.Rename(a, c), os.Rename(b, a), os.Rename(c, b))
	}
}

// Damage is named by its file, and refused before anything in the folder is changed.
func TestDamageIsRefused(t *testing.T) {
	type damage struct {
		do   func(dir string) error
		file string
	}
	damages := map[string]damage{
		"flip in the middle of records":     {change(seg, flip(300)), seg},
		"flip in the last records":          {change(seg, flip(-1)), seg},
		"flip in the first offset":          {change(seg, flip(6)), seg},
		"flip in the first length":          {change(seg, flip(9)), seg},
		"flip in the last length":           {change(seg, flip(-70)), seg},
		"records cut by one batch and some": {change(seg, short(200)), seg},
		"records are empty":                 {change(seg, func([]byte) []byte { return nil }), seg},
		"records are missing":               {gone(seg), seg},
		"index is missing":                  {gone(idx), idx},
		"flip in the index":                 {change(idx, flip(20)), idx},
		"index cut":                         {change(idx, short(45)), idx},
		"partition is missing":              {gone("partitions/log-0"), seg},
		"partitions are missing":            {gone("partitions"), seg},
		"positions are missing":             {gone("groups.log"), "groups.log"},
		"positions are empty":               {change("groups.log", func([]byte) []byte { return nil }), "groups.log"},
		"positions cut":                     {change("groups.log", short(150)), "groups.log"},
		"flip in the positions":             {change("groups.log", flip(30)), "groups.log"},
		"flip in the last position":         {change("groups.log", flip(-5)), "groups.log"},
		"flip in the producers":             {change("pids.log", flip(30)), "pids.log"},
		"producers are missing":             {gone("pids.log"), "pids.log"},
		"topics are missing":                {gone("topics.json"), "topics.json"},
		"topics are no JSON":                {change("topics.json", flip(0)), "topics.json"},
		"cluster is missing":                {gone("meta.json"), "meta.json"},
		"cluster is another":                {change("meta.json", flip(-4)), "meta.json"},
		"note is no JSON":                   {change("files.json", flip(0)), "files.json"},
		"topic is not in topics.json": {change("topics.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"name":"log"`, `"name":"lag"`, 1))
		}), "partitions/log-0"},
	}
	const places = "partitions changed places"
	for _, killed := range []bool{false, true} {
		whole := folder(t, killed)
		delete(damages, places)
		delete(damages, "note is missing") // a kill while logs are compacted leaves none
		if !killed {                       // after a kill two logs of one length look alike
			d := damages["records are empty"]
			d.do, d.file = swap("partitions/log-0", "partitions/state-1"), "partitions/log-0"
			damages[places] = d
			damages["note is missing"] = damage{gone("files.json"), "files.json"}
		}
		for name, d := range damages {
			dir := t.TempDir()
			copyOf(t, whole, dir)
			if killed && !strings.Contains(d.file, ".json") { // a copy's files are other ones, so nothing is known of how they grew
				note(t, dir)
			}
			if err := d.do(dir); err != nil {
				t.Fatal(err)
			}
			before := prints(t, dir)
			_, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: dir})
			if err == nil {
				t.Errorf("killed %v, %s: was taken", killed, name)
				continue
			}
			if !strings.Contains(err.Error(), d.file) || !strings.Contains(err.Error(), "belfry data restore") {
				t.Errorf("killed %v, %s: does not name %s: %v", killed, name, d.file, err)
			}
			delete(before, "lock")
			after := prints(t, dir)
			delete(after, "lock")
			if !maps.Equal(before, after) {
				t.Errorf("killed %v, %s: the folder was changed", killed, name)
			}
		}
	}
}

// note is what the broker notes of its own files.
func note(t *testing.T, dir string) {
	t.Helper()
	if err := datadir.Note(dir, false); err != nil {
		t.Fatal(err)
	}
}

// TestEveryFlip: any byte of any file, changed after an orderly stop, is found, and it is found before the broker starts.
func TestEveryFlip(t *testing.T) {
	dir := folder(t, false)
	random := rand.New(rand.NewPCG(1, 2))
	flips := 0
	for path := range prints(t, dir) {
		if slices.Contains([]string{"lock", "closed", "session_state.json", "files.json"}, path) {
			continue
		}
		whole, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 1 + random.IntN(3) {
			b := slices.Clone(whole)
			b[at] ^= byte(1 + random.IntN(255))
			if strings.HasSuffix(path, ".idx") && at%15 >= 6 && at%15 < 14 {
				continue // a time that nobody reads
			}
			if err := os.WriteFile(filepath.Join(dir, path), b, 0o600); err != nil {
				t.Fatal(err)
			}
			flips++
			if r := check(t, dir); !slices.ContainsFunc(r.Faults, func(f datadir.Fault) bool { return f.File == path || strings.HasPrefix(f.File, filepath.Dir(path)) }) {
				t.Errorf("%s, byte %d, %02x for %02x: not found", path, at, b[at], whole[at])
			}
		}
		if err := os.WriteFile(filepath.Join(dir, path), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if flips < 1000 {
		t.Fatalf("only %d flips", flips)
	}
	t.Logf("%d flips", flips)
}
