package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// rebuild writes each segment of a partition that has a fault anew, from the batches of it that can be read and that follow
// on each other, with its index.
func (l *log) rebuild(aside func(string) error) error {
	segments, err := l.readable()
	if err != nil {
		return err
	}
	var all []batch
	for _, s := range segments {
		all = append(all, s.batches...)
	}
	aborted := l.aborted(all)
	for _, s := range segments {
		if err := l.rewrite(s, aborted, aside); err != nil {
			return err
		}
	}
	path := l.path(snapshot) // it is of what was
	if err := aside(path); err != nil {
		return err
	}
	return remove(filepath.Join(l.report.Dir, path))
}

// kept is a segment's batches with their bytes.
type kept struct {
	*segment
	raw     []byte
	batches []batch
	changed bool
}

// readable reads what can be read, in order.
func (l *log) readable() ([]kept, error) {
	var all []kept
	end := int64(-1)
	for _, s := range l.segments {
		b, err := l.read(s.data)
		if err != nil {
			return nil, err
		}
		k := kept{segment: s}
		for at := int64(0); at >= 0 && at < int64(len(b)); {
			batches, stop := scan(b[at:])
			for _, r := range batches {
				from := at + r.at
				if r.base < end {
					k.changed = true
					continue
				}
				if r.base > end && end >= 0 && !l.topic.compacted() {
					l.report.repaired.Gaps = append(l.report.repaired.Gaps, gap{l.folder, end, r.base})
				}
				end = r.next
				r.at = int64(len(k.raw))
				k.raw = append(k.raw, b[from:from+r.size]...)
				k.batches = append(k.batches, r)
			}
			if at += stop; at < int64(len(b)) {
				k.changed = true
				at = resumes(b, at+1)
			}
		}
		all = append(all, k)
	}
	return all, nil
}

// aborted are the batches that readers pass over, by base offset: those of a transaction that ended so, or did not end.
// Compaction removes the ends of some that were committed, so there only those that ended so.
func (l *log) aborted(all []batch) map[int64]bool {
	in, open := map[int64]bool{}, map[int64][]int64{}
	for _, b := range all {
		switch {
		case b.control:
			for _, base := range open[b.producer] {
				in[base] = !b.commit || !l.topic.compacted()
			}
			delete(open, b.producer)
		case b.inTx:
			open[b.producer] = append(open[b.producer], b.base)
		}
	}
	for _, bases := range open {
		for _, base := range bases {
			in[base] = !l.topic.compacted()
		}
	}
	return in
}

func (l *log) rewrite(s kept, inTx map[int64]bool, aside func(string) error) error {
	for _, path := range []string{s.data, s.index} {
		if err := aside(path); err != nil {
			return err
		}
	}
	var index []byte
	for _, b := range s.batches {
		index = appendIndex(index, entry{b.epoch, inTx[b.base]})
	}
	data, indexed := filepath.Join(l.report.Dir, s.data), filepath.Join(l.report.Dir, s.index)
	if len(s.batches) == 0 {
		return errors.Join(remove(data), remove(indexed))
	}
	// Its name is its first offset.
	base := s.batches[0].base
	if base != s.base {
		if err := errors.Join(remove(data), remove(indexed)); err != nil {
			return err
		}
		data = filepath.Join(l.report.Dir, l.path(fmt.Sprintf("%d.dat", base)))
		indexed = filepath.Join(l.report.Dir, l.path(fmt.Sprintf("%d.idx", base)))
	} else if !s.changed {
		return replace(indexed, index)
	}
	return errors.Join(replace(data, s.raw), replace(indexed, index))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

const repairedName = "repaired.json"

// repaired is what earlier repairs have left as no broker would.
type repaired struct {
	Gaps []gap `json:"gaps"`
	// NoPositions says that no group has any.
	NoPositions bool `json:"no_positions"`
}

// gap is left out of a log: offsets from, and before to.
type gap struct {
	Folder string `json:"partition"`
	From   int64  `json:"from"`
	To     int64  `json:"to"`
}

func readRepaired(dir string) (r repaired, err error) {
	b, err := os.ReadFile(filepath.Join(dir, repairedName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", repairedName, err)
	}
	return r, nil
}

func writeRepaired(dir string, r repaired) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, repairedName), b)
}

func (r *Report) knownGap(folder string, from, to int64) bool {
	return slices.Contains(r.repaired.Gaps, gap{folder, from, to})
}
