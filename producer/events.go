package producer

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
)

func (s *Server) eventRoutes(api huma.API) {
	s.bulkRoute(api, "/events", "push-events", ScopeSend, "Tell events",
		"Takes one event per line, without a bound on their number. The rules in the configuration make messages of them, once for an event's id.",
		reflect.TypeFor[events.Event](), s.eventLine)
}

// eventLine reads one line of POST /v1/events. The event takes the app of the key, and now as its time if it has none.
func (s *Server) eventLine(app string, line []byte) (*kgo.Record, string, message.Problems) {
	var e events.Event
	if problems := decodeLine(line, &e); len(problems) > 0 {
		return nil, e.ID, problems
	}
	if e.App != "" && e.App != app {
		return nil, e.ID, message.Problems{{Field: "app", Text: "is not the app of the API key: leave it out"}}
	}
	e.App = app
	if e.At.IsZero() {
		e.At = s.now()
	}
	p, err := e.Proto()
	var f faults
	var value []byte
	if err == nil {
		value, err = events.Encode(p)
	}
	if err != nil {
		f.in("", err)
		return nil, e.ID, f.found
	}
	if len(value) > events.MaxBytes {
		return nil, e.ID, message.Problems{{Field: "fields", Text: "are too large"}}
	}
	return &kgo.Record{Topic: s.options.Kafka.Topic(schemas.TopicEvents), Key: schemas.Key(app, e.User), Value: value}, e.ID, nil
}
