package producer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// maxInLine bounds how many of an app's calls wait for one thing.
const maxInLine = 64

// errBusy says that an app has its share of something already, or that nothing of it became free in time.
var errBusy = errors.New("the app has its share already, or nothing became free in time")

// share divides a whole (slots, or bytes) among apps, so that none can take what another needs.
//
// An app may hold as much as is still free beside it: alone half of the whole, the next a quarter, and so on. One that holds
// nothing may take the last. So the first call of an app passes whatever one other app does. What is not free is waited for, and
// given to the app that holds least. Where apps hold their parts for long, an app without any has one recalled from who holds most.
//
// It is safe for concurrent use.
type share struct {
	whole    int64
	patience time.Duration // how long take waits
	// turn is how long the only part of an app is left to it before it is recalled for another app. 0: none is ever recalled.
	turn time.Duration
	// kept is what of the whole is taken by other means than take: by the app, and by all. Nil: nothing.
	kept func(app string) (own, all int64)

	mu     sync.Mutex // guards all below
	taken  int64
	held   map[string]int64
	line   []*part // those who wait, in the order they came
	lent   []*part // those that can be recalled, oldest first
	recall int64   // what was recalled and has not come back
}

// part is some of a share, or the wish for it.
type part struct {
	of  *share
	app string
	n   int64
	// got is closed when it is given.
	got   chan struct{}
	given time.Time
	// back is done when another app needs it: let go of it soon. It is set where parts are recalled.
	back     context.Context
	callBack context.CancelFunc
}

func newShare(whole int64, patience time.Duration) *share {
	return &share{whole: whole, patience: patience, held: map[string]int64{}}
}

// take takes n for an app, waiting for it if it must. What is more than the whole is the whole. Its error is errBusy, or that
// of ctx.
func (s *share) take(ctx context.Context, app string, n int64) (*part, error) {
	p := &part{of: s, app: app, n: min(n, s.whole), got: make(chan struct{})}
	if !s.queue(p) {
		return nil, errBusy
	}
	select {
	case <-p.got: // the usual case needs no timer
		return p, nil
	default:
	}
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	var err error
	select {
	case <-p.got:
		return p, nil
	case <-patience.C:
		err = errBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	if s.leave(p) {
		return nil, err
	}
	return p, nil // it was given just then
}

// queue puts p into the line, unless too many of its app are there.
func (s *share) queue(p *part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := 0
	for _, other := range s.line {
		if other.app == p.app {
			waiting++
		}
	}
	if waiting == maxInLine {
		return false
	}
	s.line = append(s.line, p)
	s.serve()
	return true
}

// leave takes p out of the line. It is false if p was given.
func (s *share) leave(p *part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.line, p)
	if i < 0 {
		return false
	}
	s.line = slices.Delete(s.line, i, i+1)
	s.serve() // somebody may have stood behind it
	return true
}

// release gives p back. Call it once.
func (p *part) release() {
	s := p.of
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= p.n
	if s.held[p.app] -= p.n; s.held[p.app] == 0 {
		delete(s.held, p.app)
	}
	if p.back != nil {
		if p.back.Err() != nil {
			s.recall -= p.n
		}
		p.callBack()
		s.lent = slices.DeleteFunc(s.lent, func(other *part) bool { return other == p })
	}
	s.serve()
}

// serve gives to those in line what they may have: first to who holds least. Nobody is given what an app without any waits for.
// s.mu is held.
func (s *share) serve() {
	for len(s.line) > 0 {
		order := slices.SortedStableFunc(slices.Values(s.line), func(a, b *part) int {
			return cmp.Compare(s.own(a.app), s.own(b.app))
		})
		next := slices.IndexFunc(order, func(p *part) bool { return s.own(p.app) == 0 || s.fits(p) })
		if next < 0 {
			return
		}
		p := order[next]
		if !s.fits(p) {
			s.recallFor(p)
			return
		}
		s.line = slices.DeleteFunc(s.line, func(other *part) bool { return other == p })
		s.give(p)
	}
}

// own is what an app has of the whole.
func (s *share) own(app string) int64 {
	if s.kept == nil {
		return s.held[app]
	}
	own, _ := s.kept(app)
	return own + s.held[app]
}

// fits tells whether an app may have more.
func (s *share) fits(p *part) bool {
	left := s.whole - s.taken - p.n
	if s.kept != nil {
		_, all := s.kept(p.app)
		left -= all
	}
	own := s.own(p.app)
	return left >= 0 && (own == 0 || own+p.n <= left)
}

func (s *share) give(p *part) {
	s.taken += p.n
	s.held[p.app] += p.n
	if s.turn > 0 {
		p.given = time.Now()
		p.back, p.callBack = context.WithCancel(context.Background())
		s.lent = append(s.lent, p)
	}
	close(p.got)
}

// recallFor asks for a part back, if what was asked for before is not enough: the newest of the app that holds most, or, where
// every app has but one, the oldest that had its turn.
func (s *share) recallFor(p *part) {
	if s.whole-s.taken+s.recall >= p.n {
		return
	}
	left := map[string]int{}
	var victim *part
	for _, l := range s.lent { // oldest first
		if l.back.Err() != nil {
			continue
		}
		if left[l.app]++; left[l.app] > 1 && (victim == nil || left[l.app] >= left[victim.app]) {
			victim = l
		}
	}
	for _, l := range s.lent {
		if victim == nil && l.back.Err() == nil && time.Since(l.given) >= s.turn {
			victim = l
		}
	}
	if victim != nil {
		s.recall += victim.n
		victim.callBack()
	}
}
