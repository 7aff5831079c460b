package datadir_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/belfry/belfry/stream"
)

// TestPowerLoss: a folder as a power loss leaves it. All that was on the disk is there, and of what was written after that
// each file has lost as much as it may, independently of the others, or has zeros in its place. It is taken, what was on the
// disk is all there, and what is written from then on is dealt with.
//
// With data.sync: always, what was on the disk is what was acknowledged: what is lost had not been answered yet. With
// interval it is what the last sync found.
func TestPowerLoss(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, always := range []bool{true, false} {
		dir := t.TempDir()
		e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: dir, SyncAlways: always})
		if err != nil {
			t.Fatal(err)
		}
		adm, client := clientOf(t, e)
		compact := "compact"
		for name, configs := range map[string]map[string]*string{"log": nil, "state": {"cleanup.policy": &compact}} {
			if _, err := adm.CreateTopic(t.Context(), 2, 1, configs, name); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 8 {
			transact(t, client, i, i%4 != 3)
		}
		commitTo(t, adm, 6)
		note(t, dir)
		synced := t.TempDir()
		copyOf(t, dir, synced)
		durable := values(t, synced)
		// What follows is acknowledged to this test, but on no disk.
		for i := 8; i < 16; i++ {
			transact(t, client, i, i%4 != 3)
			commitTo(t, adm, int64(i))
		}
		written := t.TempDir()
		copyOf(t, dir, written)
		all := values(t, written)
		client.Close()
		e.Close()
		for range 15 {
			afterPowerLoss(t, cut(t, synced, written, random), durable, all)
		}
	}
}

// cut is a folder between two states of it.
func cut(t *testing.T, synced, written string, random *rand.Rand) string {
	t.Helper()
	dir := t.TempDir()
	copyOf(t, synced, dir)
	for path := range prints(t, written) {
		after, err := os.ReadFile(filepath.Join(written, path))
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(filepath.Join(synced, path)) // none: it has been made since
		if path == "files.json" || len(after) <= len(before) || !bytes.HasPrefix(after, before) {
			continue
		}
		keep := len(before) + random.IntN(len(after)-len(before)+1)
		image := slices.Clone(after[:keep])
		if random.IntN(3) == 0 {
			image = append(image, make([]byte, len(after)-keep)...)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var n map[string]any
	b, err := os.ReadFile(filepath.Join(dir, "files.json"))
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	n["boot"] = "an earlier one"
	if b, err = json.Marshal(n); err == nil {
		err = os.WriteFile(filepath.Join(dir, "files.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func afterPowerLoss(t *testing.T, dir string, durable, all []string) {
	t.Helper()
	r := check(t, dir)
	e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Errorf("is refused: %v", err)
		return
	}
	defer e.Close()
	adm, client := clientOf(t, e)
	defer client.Close()
	transact(t, client, 100, true)
	got := read(t, e, "log")
	for _, v := range durable {
		if !slices.Contains(got, v) {
			t.Errorf("%q was on the disk and is gone; tears %v", v, r.Tears)
		}
	}
	for _, v := range got {
		if !slices.Contains(all, v) && !strings.Contains(v, "value 100") {
			t.Errorf("%q was never committed; tears %v", v, r.Tears)
		}
	}
	fresh := slices.DeleteFunc(slices.Clone(got), func(v string) bool { return !strings.Contains(v, "value 100") })
	if len(fresh) != 2 {
		t.Errorf("of what was written after the power loss there is %q", fresh)
	}
	ends, err := adm.ListEndOffsets(t.Context(), "log")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("log", 0)
	if at := position(t, adm); at < 6 || at > end.Offset-2 {
		t.Errorf("the group is at %d of %d, so that it passes over what is new", at, end.Offset)
	}
	counts := map[string]int{}
	for _, v := range got {
		counts[v]++
	}
	if n := slices.Max(slices.Collect(maps.Values(counts))); n != 1 {
		t.Errorf("a value is there %d times", n)
	}
}
