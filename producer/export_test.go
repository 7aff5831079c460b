package producer

import (
	"context"
	"time"
)

// SetPatience sets how long calls wait for their share of anything, and how long a client may keep a stream waiting.
func (s *Server) SetPatience(patience, stall time.Duration) {
	for _, one := range []*share{s.calls, s.streams, s.scans, s.writer.room} {
		one.patience = patience
	}
	s.stall = stall
}

// Occupy takes all that an app may have of calls, streams, scans or room.
func (s *Server) Occupy(what, app string) {
	of := map[string]*share{"calls": s.calls, "streams": s.streams, "scans": s.scans, "room": s.writer.room}[what]
	one := of.whole / 64 // of room a part is a mebibyte
	for {
		if _, err := of.take(context.Background(), app, max(one, 1)); err != nil {
			return
		}
	}
}

// Weigh has an app's open campaigns weigh so much.
func (s *Server) Weigh(app string, n int64) {
	s.follower.mu.Lock()
	defer s.follower.mu.Unlock()
	s.follower.weigh(app, n-s.follower.open[app])
}

// HoldNames has room for so many restraints.
func (s *Server) HoldNames(n int64) { s.names.whole = n }
