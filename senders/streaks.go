package senders

import (
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// streaks tell the runs that are limited for their own sake, as a campaign to targets that are limited one by one: nothing of it
// passes while others' do, where a rate would hit all of them. Their owner locks.
type streaks struct {
	// total is what became of all, and of are the runs, by their hashes, of which something was limited and nothing passed since.
	total tries
	of    map[uint64]*streak
}

// streak is those of a run that were limited in a row, and what total was before the first of them.
type streak struct {
	since  time.Time
	by     [2]float64 // kin
	before tries
	// own says that it has shown that it is limited for its own sake. It is until something of it passes.
	own bool
}

// keptStreaks are the most runs that are told apart.
const keptStreaks = 256

func (s *streak) len() float64 { return s.by[0] + s.by[1] }

// passed notes that one of a run did.
func (s *streaks) passed(run string) {
	s.total.passed++
	if len(s.of) > 0 {
		delete(s.of, xxhash.Sum64String(run))
	}
}

// limited notes that one of a run was, and says whether it is for the run's own sake: had each the same chance to pass as one of the
// others since its first was limited, not all of it would have been, as sure as sureOdds. What is not sure is looked at anew each
// quietAfter.
func (s *streaks) limited(run string, again bool, now time.Time) (own bool) {
	k := s.streak(xxhash.Sum64String(run), now)
	k.by[kin(again)]++
	s.total.limited++
	others := tries{s.total.passed - k.before.passed, s.total.limited - k.before.limited - k.len()}
	if k.len() >= trialAnswers && others.all() >= enoughTargets {
		k.own = k.own || k.len()*math.Log(max(others.share(), 1-mostShare)) < -sureOdds
	}
	return k.own
}

func (s *streaks) streak(run uint64, now time.Time) *streak {
	k := s.of[run]
	if k == nil || !k.own && now.Sub(k.since) >= quietAfter {
		if s.of == nil || len(s.of) >= keptStreaks {
			s.of = map[uint64]*streak{}
		}
		k = &streak{since: now, before: s.total}
		s.of[run] = k
	}
	return k
}

// without leaves out of the last lookBack seconds' tries what was limited of runs of which as many were as a trial takes, and nothing
// passed: so far that says no more of a rate than of those runs.
func (s *streaks) without(tries [2]tries, now time.Time) [2]tries {
	for _, k := range s.of {
		if k.len() >= trialAnswers && now.Sub(k.since) < lookBack*time.Second {
			for i := range tries {
				tries[i].limited = max(0, tries[i].limited-k.by[i])
			}
		}
	}
	return tries
}
