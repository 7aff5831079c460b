package producer

import (
	"time"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/schemas"
)

// quickEvent is an events.Event, but for its fields, which are quick's.
type quickEvent struct {
	app, id, name, user, at []byte
	hasFields               bool
	ms                      int64 // at in Unix ms
}

// readEvent reads a line into q.event and judges it. If it returns false, q.event holds rubbish.
func (q *quick) readEvent(line []byte, app string, now time.Time) bool {
	q.begin(line)
	q.event = quickEvent{}
	e := &q.event
	q.object(func(name []byte) {
		switch string(name) {
		case "app":
			q.only(&e.app)
		case "id":
			q.only(&e.id)
		case "name":
			q.only(&e.name)
		case "user":
			q.only(&e.user)
		case "at":
			q.only(&e.at)
		case "fields":
			q.once(&e.hasFields)
			q.values(events.MaxFields)
		default:
			q.bad = true
		}
	})
	if !q.ended() || len(e.app) > 0 && string(e.app) != app || !q.named(e.id) || !q.named(e.name) || !q.identity(e.user) {
		return false
	}
	at := now
	if e.at != nil {
		// It judges as encoding/json does.
		if at.UnmarshalText(e.at) != nil || at.IsZero() {
			return false
		}
	}
	e.ms = at.UnixMilli()
	return e.ms >= 0
}

// appendEvent appends the pb.Event of what readEvent read.
func (q *quick) appendEvent(b []byte, app string) []byte {
	e := &q.event
	b = schemas.AppendBytes(b, 1, app)
	b = schemas.AppendBytes(b, 2, e.id)
	b = schemas.AppendBytes(b, 3, e.name)
	b = schemas.AppendBytes(b, 4, e.user)
	b = schemas.AppendNumber(b, 5, uint64(e.ms))
	return appendPairs(b, 6, q.pairs)
}
