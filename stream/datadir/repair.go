package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Mend finishes what the last stop has left unfinished, so that kfake finds only what is whole. Nothing is lost with it. It
// refuses a folder with faults.
func (r *Report) Mend() error {
	if err := r.Err(); err != nil {
		return err
	}
	for _, t := range r.Tears {
		if err := t.mend(); err != nil {
			return fmt.Errorf("mend the embedded Kafka's folder: %s: %w", t.File, err)
		}
	}
	return nil
}

// Where groups go on whose positions are lost.
const (
	Noted = "noted" // where they were when Belfry last noted it, a minute ago at most
	Start = "start" // at the start of what is there: all of it is dealt with again
	End   = "end"   // at its end: what waits is not dealt with
)

// LostPositions says that Repair must be told where groups go on.
func (r *Report) LostPositions() bool {
	return slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.lost })
}

// knowsPositions says whether there is a note of where the groups were.
func (r *Report) knowsPositions() bool { return r.note != nil && len(r.note.Positions) > 0 }

// Repair goes on without what is damaged. Each file that it replaces is copied to a folder of its own first, whose path it
// returns. What is lost is in the faults; where positions are, groups go on at one of Noted, Start and End.
func (r *Report) Repair(at string) (string, error) {
	if r.LostPositions() && at != Start && !r.knowsPositions() {
		return "", fmt.Errorf("there is no note of any group: they can only go on at the start")
	}
	folder := filepath.Join(r.Dir, "damaged-"+time.Now().UTC().Format("20060102T150405"))
	set := map[string]bool{}
	aside := func(path string) error {
		if set[path] {
			return nil
		}
		set[path] = true
		return copyAside(filepath.Join(r.Dir, path), filepath.Join(folder, path))
	}
	for _, f := range r.Faults {
		if err := r.repair(f, aside); err != nil {
			return folder, fmt.Errorf("repair %s: %w", f.File, err)
		}
	}
	if r.LostPositions() {
		if err := r.setPositions(at); err != nil {
			return folder, fmt.Errorf("set positions: %w", err)
		}
	}
	for _, name := range []string{closedName, noteName} {
		if err := remove(filepath.Join(r.Dir, name)); err != nil {
			return folder, err
		}
	}
	return folder, writeRepaired(r.Dir, r.repaired)
}

func (r *Report) repair(f Fault, aside func(string) error) error {
	if err := aside(f.File); err != nil {
		return err
	}
	if err := f.repair(aside); err != nil {
		return err
	}
	if filepath.Base(f.File) == snapshot || filepath.Dir(f.File) == partitions {
		return os.RemoveAll(filepath.Join(r.Dir, f.File)) // a copy is aside
	}
	return nil
}

func copyAside(from, to string) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.CopyFS(to, os.DirFS(from))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// anew writes a small file as it was before there was anything in it, or its copy.
func (r *Report) anew(name string) func(func(string) error) error {
	return func(func(string) error) error {
		b := []byte(`{"version":1}`)
		switch name {
		case groupsLog, pidsLog:
			b = nil
		case topicsJSON, metaJSON:
			if r.note == nil {
				return errors.New("there is no copy of it: restore a backup")
			}
			if b = r.note.Meta; name == topicsJSON {
				b = r.note.Topics
			}
			if !json.Valid(b) {
				return errors.New("its copy is damaged too: restore a backup")
			}
		}
		return replace(filepath.Join(r.Dir, name), b)
	}
}

// readable keeps the entries that can be read.
func (r *Report) readable(name string, b []byte) func(func(string) error) error {
	return func(func(string) error) error {
		var kept []byte
		for len(b) > 0 {
			entries, end := frames(b)
			for _, e := range entries {
				kept = appendFrame(kept, e)
			}
			again := framesAgain(b, end+1)
			if again < 0 {
				break
			}
			b = b[again:]
		}
		return replace(filepath.Join(r.Dir, name), kept)
	}
}

// setPositions says where the groups go on that were noted. What groups.log still says, and is further, holds.
func (r *Report) setPositions(at string) error {
	if r.note == nil {
		r.repaired.NoPositions = true
		return nil
	}
	b, err := os.ReadFile(filepath.Join(r.Dir, groupsLog))
	if err != nil {
		return err
	}
	entries, _ := frames(b)
	have := positions(entries)
	for group, of := range r.note.Positions {
		for folder, offset := range of {
			l := r.logs[folder]
			if l == nil {
				continue
			}
			switch at {
			case Noted:
				offset = min(max(offset, have[group][folder]), l.end)
			case Start:
				offset = l.start
			case End:
				offset = l.end
			}
			if err := r.moveTo(group, folder, offset); err != nil {
				return err
			}
		}
	}
	return nil
}
