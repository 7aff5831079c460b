package datadir_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/stream/datadir"
)

// A repair loses what it says and nothing else, and what it replaced is kept.
func TestRepair(t *testing.T) {
	whole := folder(t, false)
	all := strings.Join(values(t, whole), "\n")
	for name, c := range map[string]struct {
		do        func(dir string) error
		positions string
		loss      string // of the first fault
		lost      int    // values of the log
		position  int64
	}{
		"a flip in records":           {do: change(seg, flip(250)), loss: "log-0 at offsets 2 to 2", lost: 1, position: 10},
		"a flip in the last marker":   {do: change(seg, flip(-1)), loss: "from offset 23 on", position: 10},
		"a flip in the index":         {do: change(idx, flip(20)), loss: "nothing", position: 10},
		"no index":                    {do: gone(idx), loss: "nothing", position: 10},
		"no records":                  {do: gone(seg), loss: "the records that were in it", lost: 9, position: 0},
		"no positions, as noted":      {do: gone("groups.log"), positions: datadir.Noted, loss: "dealt with", position: 10},
		"no positions, from start":    {do: gone("groups.log"), positions: datadir.Start, loss: "dealt with", position: 0},
		"no positions, to the end":    {do: gone("groups.log"), positions: datadir.End, loss: "dealt with", position: 24},
		"a flip in the positions":     {do: change("groups.log", flip(30)), positions: datadir.Noted, loss: "entries that cannot be read", position: 10},
		"no topics":                   {do: gone("topics.json"), loss: "files.json has a copy", position: 10},
		"no cluster":                  {do: gone("meta.json"), loss: "files.json has a copy", position: 10},
		"no note":                     {do: gone("files.json"), loss: "cannot be told without it", position: 10},
		"no producers":                {do: gone("pids.log"), loss: "nothing that Belfry uses", position: 10},
		"a snapshot that was changed": {do: change("partitions/log-0/snapshot.json", flip(-3)), loss: "nothing", position: 10},
	} {
		dir := t.TempDir()
		copyOf(t, whole, dir)
		if err := c.do(dir); err != nil {
			t.Fatal(err)
		}
		damaged := prints(t, dir)
		r := check(t, dir)
		if len(r.Faults) == 0 || !slices.ContainsFunc(r.Faults, func(f datadir.Fault) bool { return strings.Contains(f.Loss, c.loss) }) {
			t.Errorf("%s: faults %+v", name, r.Faults)
			continue
		}
		if (c.positions != "") != r.LostPositions() && name != "a flip in the positions" {
			t.Errorf("%s: lost positions %v", name, r.LostPositions())
		}
		aside, err := r.Repair(c.positions)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := os.Stat(aside); err == nil {
			for path, sum := range prints(t, aside) {
				if damaged[path] != sum {
					t.Errorf("%s: %s is not kept as it was", name, path)
				}
			}
		}
		for range 2 { // and it stays so
			e, adm, client := broker(t, dir)
			got := read(t, e, "log")
			for _, v := range got {
				if !strings.Contains(all, v) {
					t.Errorf("%s: %q has come up", name, v)
				}
			}
			if len(got) != 18-c.lost {
				t.Errorf("%s: %d values", name, len(got))
			}
			if at := position(t, adm); at != c.position {
				t.Errorf("%s: position %d, not %d", name, at, c.position)
			}
			client.Close()
			e.Close()
		}
	}
}

func values(t *testing.T, dir string) []string {
	t.Helper()
	copied := t.TempDir()
	copyOf(t, dir, copied)
	e, _, client := broker(t, copied)
	defer e.Close()
	defer client.Close()
	return read(t, e, "log")
}

// A backup is the folder, bit by bit, and a damaged one brings nothing back.
func TestBackup(t *testing.T) {
	dir := folder(t, false)
	var backup bytes.Buffer
	if err := check(t, dir).Backup(&backup); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "data", "kafka")
	if _, err := datadir.Restore(to, bytes.NewReader(backup.Bytes())); err != nil {
		t.Fatal(err)
	}
	want, got := prints(t, dir), prints(t, to)
	delete(want, "lock")
	if !maps.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := datadir.Restore(to, bytes.NewReader(backup.Bytes())); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over another: %v", err)
	}
	for at := 600; at < backup.Len(); at += 997 {
		b := bytes.Clone(backup.Bytes())
		b[at] ^= 1
		to := filepath.Join(t.TempDir(), "kafka")
		if _, err := datadir.Restore(to, bytes.NewReader(b)); err == nil {
			if !maps.Equal(want, prints(t, to)) { // else it was padding
				t.Errorf("byte %d was changed and brought back", at)
			}
		} else if entries, _ := os.ReadDir(filepath.Dir(to)); len(entries) > 0 {
			t.Errorf("byte %d: %v, but left %v", at, err, entries)
		}
	}
	if _, err := datadir.Restore(filepath.Join(t.TempDir(), "k"), bytes.NewReader(backup.Bytes()[:backup.Len()/2])); err == nil {
		t.Error("half a backup was brought back")
	}
}

func TestBackupRefusesDamage(t *testing.T) {
	dir := folder(t, false)
	if err := change(seg, flip(300))(dir); err != nil {
		t.Fatal(err)
	}
	if err := check(t, dir).Backup(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), seg) {
		t.Errorf("got %v", err)
	}
}
