package fanout

import "time"

// tastes is when each run may next give a few deliveries to a destination that takes nothing of what it has been given. That
// it takes nothing is inferred from those, which may all be another campaign's, and of devices that are all sick: then whoever
// is well would wait until they have been tried to the last. It is bounded as campaigns are, for what is old is forgotten.
type tastes map[string]time.Time

const (
	// tasteOf is how many deliveries a run may give so, and tasteEvery how often, in each process.
	tasteOf    = 8
	tasteEvery = 15 * time.Second
)

// due says that a run may.
func (t tastes) due(run string, now time.Time) bool { return !now.Before(t[run]) }

// note remembers that it does.
func (t tastes) note(run string, now time.Time) {
	for old, at := range t {
		if now.After(at) {
			delete(t, old)
		}
	}
	t[run] = now.Add(tasteEvery)
}
