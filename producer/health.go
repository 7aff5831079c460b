package producer

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status string `json:"status" example:"ok"`
}

type healthOutput struct{ Body Health }

const pingTimeout = 2 * time.Second

// healthRoutes tells machines that watch over the process: healthz that it runs, readyz that it can take calls. They
// need no key.
func (s *Server) healthRoutes(api huma.API) {
	ok := &healthOutput{Body: Health{Status: "ok"}}
	huma.Register(api, huma.Operation{
		Method: http.MethodGet, Path: "/healthz", OperationID: "healthz", Summary: "The process runs",
	}, func(context.Context, *struct{}) (*healthOutput, error) { return ok, nil })
	huma.Register(api, huma.Operation{
		Method: http.MethodGet, Path: "/readyz", OperationID: "readyz", Summary: "Kafka and Redis answer, and campaigns are in view",
		Errors: []int{http.StatusServiceUnavailable},
	}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if s.stopping.Err() != nil {
			return nil, unavailable("This process is stopping.")
		}
		if err := s.writer.client.Ping(ctx); err != nil {
			return nil, unavailable("Kafka does not answer.")
		}
		if err := s.options.Redis.Ping(ctx).Err(); err != nil {
			return nil, unavailable("Redis does not answer.")
		}
		if !s.follower.ready() {
			return nil, unavailable("The campaigns on Kafka are still being read.")
		}
		return ok, nil
	})
}
