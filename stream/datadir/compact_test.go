package datadir_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/belfry/belfry/stream/datadir"
)

// TestCompaction: a compaction that is killed at any point of rewriting a partition loses nothing. kfake removes the old
// files first, and what it writes then grows batch by batch.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	copyOf(t, folder(t, false), dir)
	e, _, client := broker(t, dir)
	before := read(t, e, "state")
	const state = "partitions/state-0/0.dat"
	old, err := os.Stat(filepath.Join(dir, state))
	if err != nil {
		t.Fatal(err)
	}
	keeper := datadir.NewKeeper(dir)
	midway := t.TempDir() // as it is before the first file is touched, with what is held
	if err := keeper.Compact(func() { copyOf(t, dir, midway); e.Cluster().Compact() }); err != nil {
		t.Fatal(err)
	}
	after := read(t, e, "state")
	if len(after) >= len(before) || len(after) == 0 {
		t.Fatalf("%d values before and %d after: nothing was compacted", len(before), len(after))
	}
	if _, err := os.Stat(filepath.Join(dir, "before-compaction")); !os.IsNotExist(err) {
		t.Errorf("what was held is still there: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "partitions/state-0/*.dat"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil || int64(len(whole)) >= old.Size() {
		t.Fatalf("%d bytes are as many as before; %v", len(whole), err)
	}
	index, err := os.ReadFile(files[0][:len(files[0])-4] + ".idx")
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	e.Close()
	if err := check(t, dir).Err(); err != nil {
		t.Errorf("after a compaction: %v", err)
	}
	tookBack := 0
	for keep := 0; keep <= len(whole); keep += max(1, len(whole)/12) {
		cut := t.TempDir()
		copyOf(t, midway, cut)
		for _, name := range []string{"0.dat", "0.idx"} {
			if err := os.Remove(filepath.Join(cut, "partitions/state-0", name)); err != nil {
				t.Fatal(err)
			}
		}
		name := filepath.Join(cut, "partitions/state-0", filepath.Base(files[0]))
		if err := os.WriteFile(name, whole[:keep], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name[:len(name)-4]+".idx", index[:len(index)*keep/len(whole)/15*15], 0o600); err != nil {
			t.Fatal(err)
		}
		back, err := datadir.Recover(cut)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(back, "state-0") {
			tookBack++
		}
		e, _, client := broker(t, cut)
		got := read(t, e, "state")
		for _, v := range after {
			if !slices.Contains(got, v) {
				t.Errorf("cut at %d of %d bytes: %q is lost", keep, len(whole), v)
			}
		}
		client.Close()
		e.Close()
	}
	if tookBack < 10 {
		t.Errorf("only %d were taken back", tookBack)
	}
}
