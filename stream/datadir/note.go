package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	noteName   = "files.json"
	closedName = "closed"
	lockName   = "lock"
	partitions = "partitions"
	groupsLog  = "groups.log"
	pidsLog    = "pids.log"
	topicsJSON = "topics.json"
	metaJSON   = "meta.json"
	snapshot   = "snapshot.json"
	// sessionName is what is thrown away at each start.
	sessionName = "session_state.json"
)

// note is what was in the folder when Belfry last looked.
type note struct {
	Version int `json:"version"`
	// Boot is the system's run that it was written in: a later one may have lost what was not on the disk yet.
	Boot string `json:"boot"`
	// Topics and Meta are copies of the files that all else depends on.
	Topics json.RawMessage `json:"topics"`
	Meta   json.RawMessage `json:"meta"`
	// Files are by path within the folder.
	Files map[string]noted `json:"files"`
	// Positions are how far groups had come, by group and then by partition's folder.
	Positions map[string]map[string]int64 `json:"positions"`
}

type noted struct {
	// Size was on the disk: a file that only grows has at least as much.
	Size int64 `json:"size"`
	// Sum is of the whole file, where that is small; 0 of those that hold records.
	Sum uint32 `json:"sum,omitempty"`
	// Inode tells a file that has grown from another in its place.
	Inode uint64 `json:"inode,omitempty"`
}

// Note writes down what the folder holds. All of it must be on the disk ([Sync]), and orderly says that nobody has the
// folder open any more: from then on nothing of it may change.
func Note(dir string, orderly bool) error {
	files, err := list(dir)
	if err != nil {
		return err
	}
	return writeNote(dir, files, orderly)
}

func writeNote(dir string, files map[string]noted, orderly bool) error {
	n := note{Version: 1, Boot: boot(), Files: maps.Clone(files)}
	var err error
	if n.Topics, err = os.ReadFile(filepath.Join(dir, topicsJSON)); err != nil {
		return fmt.Errorf("note what is in %s: %w", dir, err)
	}
	if n.Meta, err = os.ReadFile(filepath.Join(dir, metaJSON)); err != nil {
		return fmt.Errorf("note what is in %s: %w", dir, err)
	}
	for path, f := range n.Files {
		if isSegment(path) || !orderly && filepath.Base(path) != snapshot && path != metaJSON {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return fmt.Errorf("note what is in %s: %w", dir, err)
		}
		f.Size, f.Sum = int64(len(b)), crc32.Checksum(b, castagnoli)
		n.Files[path] = f
	}
	journal, err := os.ReadFile(filepath.Join(dir, groupsLog))
	if err != nil {
		return fmt.Errorf("note what is in %s: %w", dir, err)
	}
	entries, _ := frames(journal)
	n.Positions = positions(entries)
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, noteName), b); err != nil {
		return err
	}
	if !orderly {
		return nil
	}
	return replace(filepath.Join(dir, closedName), nil)
}

func isSegment(path string) bool {
	return strings.HasSuffix(path, ".dat") || strings.HasSuffix(path, ".idx")
}

// readNote is nil where there is none: a folder of an earlier release, or one that has just been made.
func readNote(dir string) (*note, error) {
	b, err := os.ReadFile(filepath.Join(dir, noteName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var n note
	if err := json.Unmarshal(b, &n); err != nil {
		return nil, err
	}
	return &n, nil
}

// list is every file that kfake has in the folder, by path within it.
func list(dir string) (map[string]noted, error) {
	files := map[string]noted{}
	add := func(path string, e fs.DirEntry) error {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // replaced or removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		files[path] = noted{Size: info.Size(), Inode: info.Sys().(*syscall.Stat_t).Ino}
		return nil
	}
	top, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range top {
		if e.Type().IsRegular() && !ours(e.Name()) {
			if err := add(e.Name(), e); err != nil {
				return nil, err
			}
		}
	}
	folders, err := os.ReadDir(filepath.Join(dir, partitions))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range folders {
		path := filepath.Join(partitions, f.Name())
		entries, err := os.ReadDir(filepath.Join(dir, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".tmp") {
				if err := add(filepath.Join(path, e.Name()), e); err != nil {
					return nil, err
				}
			}
		}
	}
	return files, nil
}

// ours tells the files that Belfry has beside kfake's, and those that do not stay.
func ours(name string) bool {
	return slices.Contains([]string{noteName, closedName, lockName, repairedName, sessionName}, name) || strings.HasSuffix(name, ".tmp")
}

// replace writes a file as a whole, onto the disk: the old one is there until the new one is.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFile(filepath.Dir(path))
}

// boot names this run of the system; "" where that cannot be told.
func boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
