package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// log is one partition.
type log struct {
	report    *Report
	folder    string
	topic     topic
	partition int32

	segments   []*segment
	start, end int64 // offsets
	bytes      int64
	committed  bool // a transaction has ended with a commit
	held       bool // it is what was before a compaction
}

// segment is a pair of files.
type segment struct {
	base    int64
	last    bool
	data    string // paths within the folder
	index   string
	batches []batch
	sound   bool // its records, not the index
}

// stood is a partition when it was last stopped in good order.
type stood struct {
	HighWatermark int64 `json:"high_watermark"`
	Segments      []struct {
		Base int64 `json:"base_offset"`
		Size int64 `json:"size"`
	} `json:"segments"`
}

func (l *log) path(name string) string {
	if l.held {
		return filepath.Join(heldName, l.folder, name)
	}
	return filepath.Join(partitions, l.folder, name)
}

func (l *log) read(path string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(l.report.Dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// check reads the whole partition.
func (l *log) check() error {
	entries, err := os.ReadDir(filepath.Join(l.report.Dir, l.path("")))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if n, err := strconv.ParseInt(base, 10, 64); err == nil {
				l.segments = append(l.segments, &segment{base: n, data: l.path(base + ".dat"), index: l.path(base + ".idx")})
			}
		}
	}
	slices.SortFunc(l.segments, func(a, b *segment) int { return int(min(1, max(-1, a.base-b.base))) })
	for i, s := range l.segments {
		s.last = i == len(l.segments)-1
		if i == 0 {
			l.start, l.end = s.base, s.base
		}
		if err := l.checkSegment(s); err != nil {
			return err
		}
	}
	return l.checkSnapshot()
}

func (l *log) checkSegment(s *segment) error {
	b, err := l.read(s.data)
	if err != nil {
		return err
	}
	index, err := l.read(s.index)
	if err != nil {
		return err
	}
	var end int64
	s.batches, end = scan(b)
	l.bytes += int64(len(b))
	s.sound = l.inOrder(s) && (end == int64(len(b)) || l.unreadable(s, b, end, len(index)/indexEntry))
	if s.sound {
		l.checkIndex(s, index)
	}
	return nil
}

// inOrder checks that offsets follow on each other. Only compaction leaves gaps.
func (l *log) inOrder(s *segment) bool {
	for i, b := range s.batches {
		expected := l.end
		if i == 0 {
			expected = max(expected, s.base)
		}
		misnamed := i == 0 && b.base != s.base
		gap := b.base > l.end && !l.topic.compacted() && !l.report.knownGap(l.folder, l.end, b.base)
		if b.base < expected || misnamed || gap {
			f := Fault{File: s.data, At: b.at, What: fmt.Sprintf("has offset %d, where %d is expected", b.base, l.end), repair: l.rebuild}
			if b.base > l.end {
				f.Loss = l.lost(l.end, b.base)
			}
			l.report.fault(f)
			l.end = max(l.end, b.next)
			s.batches = s.batches[:i]
			return false
		}
		l.end = b.next
		l.committed = l.committed || b.commit
	}
	return true
}

func (l *log) lost(from, to int64) string {
	if from >= to {
		return ""
	}
	return fmt.Sprintf("the records of %s at offsets %d to %d", l.folder, from, to-1)
}

// unreadable tells the torn end of a log, which it notes, from damage. It is true for the first.
func (l *log) unreadable(s *segment, b []byte, end int64, indexed int) bool {
	f := Fault{File: s.data, At: end, repair: l.rebuild}
	size, sized := sizeOf(b[end:])
	whole := sized && end+size <= int64(len(b))
	was, known := l.report.noted(s.data)
	switch again := resumes(b, end+1); {
	case again >= 0:
		rest, _ := scan(b[again:])
		f.What = fmt.Sprintf("cannot be read up to byte %d, where records go on", again)
		f.Loss = l.lost(l.end, rest[0].base)
		l.end = rest[len(rest)-1].next
	case !s.last:
		f.What = "cannot be read from here to its end, and the log goes on in the next file"
	case known && was.Size > end:
		f.What = "cannot be read from here to its end, and it could before"
	case l.report.Stop == Orderly:
		f.What = "cannot be read from here to its end, and the last stop was in good order"
	case l.report.Stop == Killed && whole:
		f.What = "the last records are all there, and their checksum is not theirs"
	case l.report.Stop == Killed && indexed > len(s.batches):
		f.What = "the last records are cut off, and they had been written"
	default:
		path := filepath.Join(l.report.Dir, s.data)
		l.report.tear(Tear{
			File: s.data, At: end, What: fmt.Sprintf("%d bytes were being written", int64(len(b))-end),
			mend: func() error { return os.Truncate(path, end) },
		})
		return true
	}
	if f.Loss == "" {
		f.Loss = fmt.Sprintf("the records of %s from offset %d on, in this file", l.folder, l.end)
	}
	l.report.fault(f)
	return false
}

// checkIndex compares an index with what it is of.
func (l *log) checkIndex(s *segment, index []byte) {
	n := len(index) / indexEntry
	damaged := func(at int, what string) {
		l.report.fault(Fault{File: s.index, At: int64(at), What: what, Loss: "nothing: it is made anew from the records", repair: l.rebuild})
	}
	was, known := l.report.noted(s.index)
	for i := range min(n, len(s.batches)) {
		e, ok := readIndex(index[i*indexEntry : (i+1)*indexEntry])
		b := s.batches[i]
		if !ok || e.epoch != b.epoch || e.inTx && !b.inTx || b.inTx && !e.inTx && !l.topic.compacted() {
			if !ok && l.report.Stop == Power && s.last && (!known || was.Size <= int64(i*indexEntry)) {
				n = i // it was not on the disk yet
				break
			}
			damaged(i*indexEntry, "is not that of the records")
			return
		}
	}
	if n == len(s.batches) && len(index) == n*indexEntry {
		return
	}
	lacks := len(s.batches) - n
	if l.report.Stop == Orderly || !s.last || known && was.Size > int64(min(n, len(s.batches))*indexEntry) || l.report.Stop == Killed && (lacks > 1 || lacks < 0) {
		damaged(min(n, len(s.batches))*indexEntry, fmt.Sprintf("is of %d batches, and the records are %d", n, len(s.batches)))
		return
	}
	path := filepath.Join(l.report.Dir, s.index)
	l.report.tear(Tear{
		File: s.index, At: int64(n * indexEntry), What: fmt.Sprintf("is of %d batches, and the records are %d", n, len(s.batches)),
		mend: func() error {
			index := index[:min(n, len(s.batches))*indexEntry]
			for _, b := range s.batches[min(n, len(s.batches)):] {
				index = appendIndex(index, entry{b.epoch, b.inTx})
			}
			return replace(path, index)
		},
	})
}

// checkSnapshot compares the log with what it was.
func (l *log) checkSnapshot() error {
	path := l.path(snapshot)
	b, err := l.read(path)
	if err != nil {
		return err
	}
	f := Fault{File: path, At: -1, Loss: "nothing, but records that had been deleted may be back", repair: put}
	var was stood
	changed, known := l.report.noted(path)
	switch {
	case b == nil && l.report.Stop == Orderly && len(l.segments) > 0:
		f.What = "is missing"
	case b == nil:
		return nil
	case known && changed.Sum != crc32.Checksum(b, castagnoli):
		f.What = "was changed after Belfry wrote it"
	case json.Unmarshal(b, &was) != nil:
		f.What = "cannot be read"
	case l.report.Stop == Orderly && len(l.segments) > 0:
		l.same(was)
		return nil
	default:
		return nil
	}
	l.report.fault(f)
	return nil
}

// same checks that an orderly stop has left what is there.
func (l *log) same(was stood) {
	for _, s := range was.Segments {
		path := l.path(strconv.FormatInt(s.Base, 10) + ".dat")
		if f, ok := l.report.files[path]; (!ok || f.Size < s.Size) && l.sound() {
			l.report.fault(Fault{File: path, At: f.Size, What: fmt.Sprintf("had %d bytes when Belfry stopped", s.Size), Loss: l.lost(l.end, was.HighWatermark), repair: l.rebuild})
			return
		}
	}
	if was.HighWatermark != l.end && l.sound() {
		l.report.fault(Fault{
			File: l.path(snapshot), At: -1, What: fmt.Sprintf("says that the log ends at offset %d, and it ends at %d", was.HighWatermark, l.end),
			Loss: l.lost(l.end, was.HighWatermark), repair: l.rebuild,
		})
	}
}

// sound says that no fault of the records is noted yet.
func (l *log) sound() bool {
	return !slices.ContainsFunc(l.segments, func(s *segment) bool { return !s.sound })
}

// endOf is the offset behind the last batch of a partition that can be read with all before it and has its index entry; 0
// where there is none.
func endOf(folder string) (int64, error) {
	r := &Report{Dir: filepath.Dir(filepath.Dir(folder)), Stop: Killed, logs: map[string]*log{}}
	l := &log{
		report: r, folder: filepath.Base(folder), held: filepath.Base(filepath.Dir(folder)) == heldName,
		topic: topic{Configs: map[string]string{"cleanup.policy": "compact"}},
	}
	if err := l.check(); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if len(r.Faults) > 0 {
		return 0, nil
	}
	return l.end, nil
}
