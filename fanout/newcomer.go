package fanout

import "time"

// began is when each run's last chunk was let go. The first chunk of a run may pass a gate that is closed, though not one
// that is far behind: the lane serves runs in turns, so a small campaign need not wait until a big one's backlog is done.
type began map[string]time.Time

// newcomer says that nothing of a run has been let go.
func (b began) newcomer(run string) bool {
	_, known := b[run]
	return !known
}

// note remembers that a chunk of a run is let go, for as long as a pacer remembers it.
func (b began) note(run string, now time.Time) {
	if _, known := b[run]; !known {
		for old, at := range b {
			if now.Sub(at) > forget {
				delete(b, old)
			}
		}
	}
	b[run] = now
}

// forget takes a note back: nothing came of the chunk.
func (b began) forget(run string) { delete(b, run) }
