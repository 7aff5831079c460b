package producer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/belfry/belfry/health"
)

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status   string   `json:"status" example:"ok"`
	Warnings []string `json:"warnings,omitempty" doc:"What an operator should look at, though calls can be served. belfry lanes says more"`
}

type healthOutput struct{ Body Health }

// healthRoutes tells machines that watch over the process: healthz that it runs, readyz that it can take calls. They
// need no key.
func (s *Server) healthRoutes(api huma.API) {
	ok := &healthOutput{Body: Health{Status: "ok"}}
	huma.Register(api, huma.Operation{
		Method: http.MethodGet, Path: "/healthz", OperationID: "healthz", Summary: "The process runs",
	}, func(context.Context, *struct{}) (*healthOutput, error) { return ok, nil })
	huma.Register(api, huma.Operation{
		Method: http.MethodGet, Path: "/readyz", OperationID: "readyz",
		Summary: "What calls need answers, is what it should be, and is in view; and what this process runs gets on",
		Errors:  []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		if err := s.ready(ctx); err != nil {
			return nil, unavailable(health.Sentences(err))
		}
		return &healthOutput{Body: Health{Status: "ok", Warnings: s.health.Warnings()}}, nil
	})
}

// ready is why this process should be given no calls, or nil.
func (s *Server) ready(ctx context.Context) error {
	if s.stopping.Err() != nil {
		return errors.New("this process is stopping")
	}
	var unread error
	if names := s.unread(); len(names) > 0 {
		unread = fmt.Errorf("still being read from Kafka: %s", strings.Join(names, ", "))
	}
	return errors.Join(unread, s.health.Ready(ctx))
}

// unread names what is not in view yet.
func (s *Server) unread() (names []string) {
	for _, v := range []struct {
		name  string
		ready <-chan struct{}
	}{
		{"campaigns", s.follower.campaigns.Ready()},
		{"accounts", s.follower.accounts.Ready()},
		{"lanes", s.follower.lanes.Ready()},
		{"what is held back", s.follower.control.Ready()},
	} {
		select {
		case <-v.ready:
		default:
			names = append(names, v.name)
		}
	}
	return names
}
