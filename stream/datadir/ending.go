package datadir

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// kfake ends a transaction piece by piece: a marker in one partition after the other, then the positions of its groups. A kill between
// two of them would leave a part of a commit: what is done would be done again, or what was written would be lost. So what a
// commit holds is noted before the first piece, in a file that has the last one only, since kfake makes one at a time; and the next
// start makes whole what had begun.

const endingName = "ending"

// Ending is a transaction that is about to be committed.
type Ending struct {
	Producer  int64      `json:"producer"`
	Epoch     int16      `json:"epoch"`
	Positions []Position `json:"positions"`
}

// Position is one that the transaction sets.
type Position struct {
	Group     string  `json:"g"`
	Topic     string  `json:"t"`
	Partition int32   `json:"p"`
	Offset    int64   `json:"o"`
	Epoch     int32   `json:"e"`
	Metadata  *string `json:"m"`
}

// Endings is where they are noted. One goroutine uses it.
type Endings struct {
	f    *os.File
	sync bool
}

// OpenEndings opens the file in dir. With sync each note reaches the disk before Note returns.
func OpenEndings(dir string, sync bool) (*Endings, error) {
	f, err := os.OpenFile(filepath.Join(dir, endingName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Endings{f, sync}, nil
}

// Note takes the place of what was noted before.
func (s *Endings) Note(e Ending) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := s.f.WriteAt(appendFrame(nil, data), 0); err != nil || !s.sync {
		return err
	}
	return s.f.Sync()
}

// Close closes the file.
func (s *Endings) Close() error { return s.f.Close() }

// Over removes it: the last commit was made, and there is no next one.
func (s *Endings) Over() error { return errors.Join(s.f.Close(), os.Remove(s.f.Name())) }

// Complete makes whole the commit that a kill cut off, if one had begun. It comes after Mend, and may be repeated. done says that
// there was something to do.
func (r *Report) Complete() (done bool, err error) {
	path := filepath.Join(r.Dir, endingName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var e Ending
	if data, _, ok := frame(b); ok && r.Stop != Orderly { // one that is not whole was to be noted before anything began
		if err := json.Unmarshal(data, &e); err != nil {
			return false, fmt.Errorf("%s: %w", endingName, err)
		}
		if done, err = r.complete(e); err != nil {
			return false, fmt.Errorf("complete a commit that was cut off: %w", err)
		}
	}
	return done, os.Remove(path)
}

func (r *Report) complete(e Ending) (done bool, err error) {
	var marker []byte
	var open []*log
	for _, l := range r.logs {
		switch m, isOpen, err := l.ending(e); {
		case err != nil:
			return false, err
		case m != nil:
			marker = m
		case isOpen:
			open = append(open, l)
		}
	}
	if marker == nil { // it had not begun: nothing of it stands
		return false, nil
	}
	for _, l := range open {
		if err := l.closes(marker); err != nil {
			return false, err
		}
	}
	moved, err := r.advance(e.Positions)
	return moved || len(open) > 0, err
}

// ending looks how far a commit has come in a partition: its marker there, or else whether its records are.
func (l *log) ending(e Ending) (marker []byte, open bool, err error) {
	for _, s := range slices.Backward(l.segments) {
		if !slices.ContainsFunc(s.batches, func(b batch) bool { return b.producer == e.Producer }) {
			continue
		}
		raw, err := l.read(s.data)
		if err != nil {
			return nil, false, err
		}
		for _, b := range slices.Backward(s.batches) {
			if b.producer != e.Producer {
				continue
			}
			bytes := raw[b.at : b.at+b.size]
			switch same := int16(binary.BigEndian.Uint16(bytes[producerEpochAt:])) == e.Epoch; {
			case same && b.commit:
				return bytes, false, nil
			case same && b.inTx:
				return nil, true, nil
			}
			return nil, false, nil
		}
	}
	return nil, false, nil
}

// closes appends a marker that stands in another partition. Its checksum covers neither its offset nor its leader epoch.
func (l *log) closes(marker []byte) error {
	s := l.segments[len(l.segments)-1]
	m := slices.Clone(marker)
	epoch := int32(binary.BigEndian.Uint32(m[lengthEnd:]))
	if n := len(s.batches); n > 0 {
		epoch = max(epoch, s.batches[n-1].epoch)
	}
	binary.BigEndian.PutUint64(m, uint64(l.end))
	binary.BigEndian.PutUint32(m[lengthEnd:], uint32(epoch))
	return errors.Join(
		appendTo(filepath.Join(l.report.Dir, s.data), m),
		appendTo(filepath.Join(l.report.Dir, s.index), appendIndex(nil, entry{epoch: epoch})),
	)
}

// advance moves the groups to a commit's positions, but none back.
func (r *Report) advance(to []Position) (moved bool, err error) {
	b, err := os.ReadFile(filepath.Join(r.Dir, groupsLog))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	entries, _ := frames(b)
	at := positions(entries)
	var more []byte
	for _, p := range to {
		if now, ok := at[p.Group][folderOf(p.Topic, p.Partition)]; ok && now >= p.Offset {
			continue
		}
		b, err := commit(p)
		if err != nil {
			return false, err
		}
		more = append(more, b...)
	}
	if len(more) == 0 {
		return false, nil
	}
	return true, appendTo(filepath.Join(r.Dir, groupsLog), more)
}

func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
