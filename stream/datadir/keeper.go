package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// noteEvery is how old a note may be of a folder whose files only grow.
const noteEvery = time.Minute

// Keeper has what a broker writes reach the disk, and notes what is there. Its methods are for one goroutine.
type Keeper struct {
	dir string
	// synced is what is on the disk.
	synced map[string]noted
	noted  time.Time
	// listed is how many files with records there were at the last note.
	listed int
}

// NewKeeper keeps a folder that a broker has just opened.
func NewKeeper(dir string) *Keeper { return &Keeper{dir: dir, synced: map[string]noted{}} }

// Sync writes to the disk what has been written to files since the last call, and returns when it is there. A note follows
// when there is something to note.
func (k *Keeper) Sync() error {
	files, err := list(k.dir)
	if err != nil {
		return fmt.Errorf("sync the embedded Kafka's folder: %w", err)
	}
	folders, segments := map[string]bool{}, 0
	for path, f := range files {
		if isSegment(path) {
			segments++
		}
		was, known := k.synced[path]
		if known && was.Size == f.Size && was.Inode == f.Inode {
			continue
		}
		if !known || was.Inode != f.Inode {
			folders[filepath.Dir(path)] = true
		}
		if err := k.sync(path); err != nil {
			return fmt.Errorf("sync the embedded Kafka's folder: %w", err)
		}
	}
	for folder := range folders {
		if err := errors.Join(k.sync(folder), k.sync(filepath.Dir(folder))); err != nil {
			return fmt.Errorf("sync the embedded Kafka's folder: %w", err)
		}
	}
	k.synced = files
	if segments == k.listed && time.Since(k.noted) < noteEvery {
		return nil
	}
	return k.note(segments)
}

func (k *Keeper) note(segments int) error {
	if err := writeNote(k.dir, k.synced, false); err != nil {
		return err
	}
	k.noted, k.listed = time.Now(), segments
	return nil
}

// sync is done with what has been removed or replaced meanwhile.
func (k *Keeper) sync(path string) error {
	err := syncFile(filepath.Join(k.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close notes an orderly stop. The broker must have closed its files.
func (k *Keeper) Close() error {
	if err := k.Sync(); err != nil {
		return err
	}
	return Note(k.dir, true)
}

// Opened takes back the note of an orderly stop: a broker is about to write.
func Opened(dir string) error {
	if err := remove(filepath.Join(dir, closedName)); err != nil {
		return err
	}
	return syncFile(dir)
}

// Compact calls compact, which has the broker rewrite the logs of compacted topics: kfake removes a partition's files, and
// then writes them anew. Their old ones stay until that is done, so that a kill in the middle loses nothing ([Recover]).
func (k *Keeper) Compact(compact func()) error {
	if err := k.Sync(); err != nil {
		return err
	}
	// The note is of files that are about to shrink.
	if err := remove(filepath.Join(k.dir, noteName)); err != nil {
		return err
	}
	if err := hold(k.dir); err != nil {
		return fmt.Errorf("compact the embedded Kafka's logs: %w", err)
	}
	compact()
	k.noted = time.Time{}
	if err := k.Sync(); err != nil {
		return err
	}
	return release(k.dir)
}

const (
	heldName    = "before-compaction"
	holdingName = heldName + ".tmp" // being made, or removed
)

// hold links the files of compacted topics.
func hold(dir string) error {
	holding := filepath.Join(dir, holdingName)
	if err := os.RemoveAll(holding); err != nil {
		return err
	}
	topics, err := readTopics(dir)
	if err != nil {
		return err
	}
	files, err := list(dir)
	if err != nil {
		return err
	}
	for path := range files {
		folder := filepath.Base(filepath.Dir(path))
		if name, _, ok := partitionOf(folder); !isSegment(path) || !ok || !topics[name].compacted() {
			continue
		}
		if err := os.MkdirAll(filepath.Join(holding, folder), 0o700); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(dir, path), filepath.Join(holding, folder, filepath.Base(path))); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(holding, 0o700); err != nil {
		return err
	}
	if err := os.Rename(holding, filepath.Join(dir, heldName)); err != nil {
		return err
	}
	return syncFile(dir)
}

func release(dir string) error {
	if err := os.Rename(filepath.Join(dir, heldName), filepath.Join(dir, holdingName)); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, holdingName))
}

// Recover takes back what a compaction has done that did not come to its end: each partition that it had not rewritten
// whole is again what it was. It returns their folders. Nobody may have the folder open.
func Recover(dir string) ([]string, error) {
	held := filepath.Join(dir, heldName)
	entries, err := os.ReadDir(held)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, os.RemoveAll(filepath.Join(dir, holdingName))
	}
	if err != nil {
		return nil, err
	}
	var back []string
	for _, e := range entries {
		folder := filepath.Join(dir, partitions, e.Name())
		before, err := endOf(filepath.Join(held, e.Name()))
		if err != nil {
			return back, err
		}
		after, err := endOf(folder)
		if err != nil {
			return back, err
		}
		if after >= before { // compaction keeps the last batch, and writes it last
			continue
		}
		if err := putBack(filepath.Join(held, e.Name()), folder); err != nil {
			return back, fmt.Errorf("take back the compaction of %s: %w", e.Name(), err)
		}
		back = append(back, e.Name())
	}
	return back, release(dir)
}

// putBack links a partition's files to where they were, in the place of those that are there.
func putBack(held, folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if isSegment(e.Name()) {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		}
	}
	if entries, err = os.ReadDir(held); err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Link(filepath.Join(held, e.Name()), filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return syncFile(folder)
}
