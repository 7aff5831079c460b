package datadir

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// missing looks for files that were there. Those of topics that have been deleted since may be gone.
func (r *Report) missing(topics map[string]topic) {
	if r.note == nil {
		return
	}
	for path, was := range r.note.Files {
		if !isSegment(path) {
			if _, there := r.files[path]; !there && r.Stop == Orderly && filepath.Base(path) == snapshot && r.logs[filepath.Base(filepath.Dir(path))] == nil {
				r.gone(path, was, 0, topics)
			}
			continue
		}
		if f, there := r.files[path]; !there || f.Size < was.Size {
			r.gone(path, was, f.Size, topics)
		}
	}
}

func (r *Report) gone(path string, was noted, size int64, topics map[string]topic) {
	folder := filepath.Base(filepath.Dir(path))
	name, n, _ := partitionOf(folder)
	if t, ok := topics[name]; !ok || n >= t.Partitions || r.damaged(path) {
		return
	}
	f := Fault{File: path, At: size, What: fmt.Sprintf("has %d bytes, and had %d", size, was.Size), repair: put}
	if _, there := r.files[path]; !there {
		f.At, f.What = -1, fmt.Sprintf("is missing, and had %d bytes", was.Size)
	}
	switch l := r.logs[folder]; {
	case strings.HasSuffix(path, ".idx") && l != nil:
		f.Loss, f.repair = "nothing: it is made anew from the records", l.rebuild
	case l != nil:
		f.Loss, f.repair = "the records that were in it", l.rebuild
	default:
		f.Loss = "the records that were in it"
	}
	r.fault(f)
}

// damaged says that a fault of a file is noted.
func (r *Report) damaged(path string) bool {
	for _, f := range r.Faults {
		if f.File == path {
			return true
		}
	}
	return false
}

// journals checks what is only appended to.
func (r *Report) journals(topics map[string]topic) error {
	if _, err := r.journal(pidsLog); err != nil {
		return err
	}
	entries, err := r.journal(groupsLog)
	if err != nil {
		return err
	}
	at := positions(entries)
	for _, of := range at {
		r.Positions += len(of)
	}
	if r.damaged(groupsLog) {
		return nil
	}
	if r.note == nil && r.Positions == 0 && r.committed() && !r.repaired.NoPositions { // a folder of an earlier release
		r.fault(Fault{File: groupsLog, At: -1, What: "has no position of any group, and the topics have records that groups had dealt with", lost: true, Loss: lostPositions, repair: put})
		return nil
	}
	for group, of := range at {
		for folder, offset := range of {
			r.position(group, folder, offset, topics)
		}
	}
	r.forgotten(at, topics)
	return nil
}

// forgotten looks for groups that had positions in a topic and have none.
func (r *Report) forgotten(at map[string]map[string]int64, topics map[string]topic) {
	if r.note == nil {
		return
	}
	for group, of := range r.note.Positions {
		for folder, offset := range of {
			name, n, _ := partitionOf(folder)
			if _, ok := at[group][folder]; ok || topics[name].Partitions <= n || r.logs[folder] == nil || r.logs[folder].end == 0 {
				continue
			}
			r.fault(Fault{
				File: groupsLog, At: -1, What: fmt.Sprintf("has no position of group %s in %s, and it was at offset %d", group, folder, offset),
				lost: true, Loss: lostPositions, repair: put,
			})
		}
	}
}

const lostPositions = "which records had been dealt with since Belfry last noted it: these are sent again"

func (r *Report) committed() bool {
	for _, l := range r.logs {
		if l.committed {
			return true
		}
	}
	return false
}

// position checks that a group has not come further than its log goes. A log may have lost its end with the power, and one
// that retention has emptied begins at 0 again: what is written there from now on has been dealt with by nobody.
func (r *Report) position(group, folder string, offset int64, topics map[string]topic) {
	name, n, _ := partitionOf(folder)
	if topics[name].Partitions <= n {
		return
	}
	var end int64
	l := r.logs[folder]
	if l != nil {
		end = l.end
	}
	if offset <= end || l != nil && !l.sound() {
		return
	}
	what := fmt.Sprintf("group %s is at offset %d of %s, which ends at %d", group, offset, folder, end)
	back := func() error { return r.moveTo(group, folder, end) }
	if r.Stop == Power || l == nil || len(l.segments) == 0 {
		r.tear(Tear{File: groupsLog, What: what, mend: back})
		return
	}
	r.fault(Fault{File: groupsLog, At: -1, What: what, Loss: l.lost(end, offset), repair: func(func(string) error) error { return back() }})
}

func (r *Report) moveTo(group, folder string, offset int64) error {
	topic, partition, ok := partitionOf(folder)
	if !ok {
		return fmt.Errorf("%q is not the folder of a partition", folder)
	}
	b, err := commit(Position{Group: group, Topic: topic, Partition: int32(partition), Offset: offset})
	if err != nil {
		return err
	}
	return appendTo(filepath.Join(r.Dir, groupsLog), b)
}

// journal reads one, and returns its entries.
func (r *Report) journal(name string) ([][]byte, error) {
	path := filepath.Join(r.Dir, name)
	b, err := os.ReadFile(path)
	f := Fault{File: name, At: -1, lost: name == groupsLog, Loss: smallLoss(name), repair: r.anew(name)}
	if errors.Is(err, fs.ErrNotExist) {
		f.What = "is missing"
		r.fault(f)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, end := frames(b)
	was, known := r.noted(name)
	grown := known && was.Inode == r.files[name].Inode
	f.lost = false
	f.Loss, f.repair = "the entries that cannot be read: "+smallLoss(name), r.readable(name, b)
	switch again := framesAgain(b, end+1); {
	case r.Stop == Orderly && known && was.Sum != 0 && was.Sum != crc32.Checksum(b, castagnoli) && end == len(b):
		f.What = "was changed after Belfry stopped"
		f.lost = name == groupsLog
	case grown && int64(len(b)) < was.Size && r.Stop != Orderly:
		f.What, f.lost = fmt.Sprintf("has %d bytes, and had %d", len(b), was.Size), name == groupsLog
	case end == len(b):
		return entries, nil
	case again >= 0:
		f.At, f.What = int64(end), fmt.Sprintf("cannot be read up to byte %d, where entries go on", again)
	case r.Stop == Orderly:
		f.At, f.What = int64(end), "cannot be read from here to its end, and the last stop was in good order"
	case grown && was.Size > int64(end):
		f.At, f.What = int64(end), "cannot be read from here to its end, and it could before"
	case r.Stop == Killed && !cutShort(b[end:]):
		f.At, f.What = int64(end), "the last entry is all there, and its checksum is not its own"
	default:
		r.tear(Tear{
			File: name, At: int64(end), What: fmt.Sprintf("%d bytes were being written", len(b)-end),
			mend: func() error { return os.Truncate(path, int64(end)) },
		})
		return entries, nil
	}
	r.fault(f)
	return entries, nil
}

// smallLoss is what is lost with a file that begins anew.
func smallLoss(name string) string {
	switch name {
	case groupsLog:
		return lostPositions
	case topicsJSON, metaJSON:
		return "nothing, where files.json has a copy; else all"
	}
	return "nothing that Belfry uses"
}
