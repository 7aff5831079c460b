package senders

// turns are what runs take where only some of what is parked may come back: a campaign of which nothing would pass, and which was there
// first, must not hide that another's would. Their owner locks.
type turns struct {
	// taken counts those that came back, by run; who is met first begins with the least of the others.
	taken byRun
	// seen are the runs that were asked about in this look. least is the least of those of the last, and each how many of a run
	// may come back beyond that.
	seen        map[string]struct{}
	least, each int
}

// look begins a new one over all that is parked, in which so many may come back.
func (t *turns) look(wanted int) {
	if t.seen == nil {
		t.seen = map[string]struct{}{}
	}
	t.least = 0
	first := true
	for run, n := range t.taken.of {
		if _, ok := t.seen[run]; !ok {
			delete(t.taken.of, run)
		} else if first || n < t.least {
			t.least, first = n, false
		}
	}
	t.each = max(1, (wanted+len(t.seen)-1)/max(1, len(t.seen)))
	clear(t.seen)
}

// may says whether one of a run may come back.
func (t *turns) may(run string) bool {
	run = t.name(run)
	t.seen[run] = struct{}{}
	return t.taken.get(run) < t.least+t.each
}

// took notes that one does.
func (t *turns) took(run string) {
	run = t.name(run)
	t.taken.set(run, t.taken.get(run)+1)
}

// passed gives a run the turn back that one of it had that has passed.
func (t *turns) passed(run string) {
	if t.taken.has(run) {
		t.taken.set(run, max(t.taken.get(run)-1, t.least))
	}
}

// name is that under which a run is counted.
func (t *turns) name(run string) string {
	run = t.taken.name(run)
	if !t.taken.has(run) {
		t.taken.set(run, t.least)
	}
	return run
}
