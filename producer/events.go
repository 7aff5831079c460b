package producer

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
)

func (s *Server) eventRoutes(api huma.API) {
	s.bulkRoute(api, "/events", schemas.TopicEvents, "push-events", ScopeSend, "Tell events",
		"Takes one event per line, without a bound on their number. The rules in the configuration make messages of them, once for an event's id.",
		reflect.TypeFor[events.Event](), s.eventLine)
}

// eventLine reads one line of POST /v1/events. The event takes the app of the key, and now as its time if it has none.
func (s *Server) eventLine(b *batch, l *line, text []byte) {
	if b.quick.readEvent(text, b.app, b.now) {
		e := &b.quick.event
		begin := len(b.room)
		b.room = b.quick.appendEvent(b.room, b.app)
		if value := b.take(begin); len(value) <= events.MaxBytes {
			l.id, l.record.Key, l.record.Value = e.id, b.key(e.user), value
			return
		}
	}
	var e events.Event
	if problems := decodeLine(text, &e); len(problems) > 0 {
		l.refuse(e.ID, problems)
		return
	}
	value, problems := s.event(b.app, &e)
	if len(problems) > 0 {
		l.refuse(e.ID, problems)
		return
	}
	l.id, l.record.Key, l.record.Value = []byte(e.ID), schemas.Key(b.app, e.User), value
}

// event is the value of an event's record.
func (s *Server) event(app string, e *events.Event) ([]byte, message.Problems) {
	if e.App != "" && e.App != app {
		return nil, message.Problems{{Field: "app", Text: "is not the app of the API key: leave it out"}}
	}
	e.App = app
	if e.At.IsZero() {
		e.At = s.now()
	}
	p, err := e.Proto()
	var value []byte
	if err == nil {
		value, err = events.Encode(p)
	}
	if err != nil {
		var f faults
		f.in("", err)
		return nil, f.found
	}
	if len(value) > events.MaxBytes {
		return nil, message.Problems{{Field: "fields", Text: "are too large"}}
	}
	return value, nil
}
