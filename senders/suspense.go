package senders

import "time"

// suspense holds the deliveries whose refusal may be their target's own, or their message's, or the credential's. The next one
// that passes tells: were it the credential, it would have been refused too. Then all that were asked before it end by their
// own rule. When none passes they are not kept in the window for long, but asked again later, each as an attempt. Its owner
// locks.
type suspense struct{ list []suspect }

type suspect struct {
	ended
	// until is when it is put off.
	until time.Time
}

// maxSuspense bounds them. What one destination has here, all of it, is a small part of a window.
const maxSuspense = 1000

func (s *suspense) add(j *job, v Verdict, now time.Time) {
	s.list = append(s.list, suspect{ended{j, v}, now.Add(patience)})
}

// take removes those that match says, in the order in which they came.
func (s *suspense) take(match func(*suspect) bool) []ended {
	var out []ended
	kept := s.list[:0]
	for i := range s.list {
		if match(&s.list[i]) {
			out = append(out, s.list[i].ended)
		} else {
			kept = append(kept, s.list[i])
		}
	}
	clear(s.list[len(kept):])
	s.list = kept
	return out
}

// clears takes those that were asked no later than one that passed.
func (s *suspense) clears(begun time.Time) []ended {
	if len(s.list) == 0 {
		return nil
	}
	return s.take(func(x *suspect) bool { return !x.begun.After(begun) })
}

// overdue takes those that have waited for too long, and those that are too many.
func (s *suspense) overdue(now time.Time) []ended {
	surplus := len(s.list) - maxSuspense
	out := s.take(func(x *suspect) bool {
		surplus--
		return surplus >= 0 || !now.Before(x.until)
	})
	for i := range out {
		out[i].verdict.Next = Later
	}
	return out
}
