package health

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/belfry/belfry/stream"
)

const (
	// callTimeout bounds a call from its first byte to its last.
	callTimeout = 10 * time.Second
	stopTimeout = 2 * time.Second
)

// Report is the answer of /healthz and /readyz.
type Report struct {
	// Status is ok, or unavailable with 503.
	Status string `json:"status"`
	// Reasons are why the process is not ready.
	Reasons string `json:"reasons,omitempty"`
	// Warnings are what an operator should look at though it is.
	Warnings []string `json:"warnings,omitempty"`
}

// Server answers /healthz and /readyz on an address of its own, from before what the process needs is there.
type Server struct {
	listener net.Listener
	log      *slog.Logger
	kafka    atomic.Pointer[stream.Kafka] // nil until Waits
	process  atomic.Pointer[Process]      // nil until Begin
	stopping atomic.Bool
}

// NewServer makes one. Serve closes the listener.
func NewServer(l net.Listener, log *slog.Logger) *Server { return &Server{listener: l, log: log} }

// Waits has it tell what a process that is starting waits for on a Kafka, until Begin.
func (s *Server) Waits(k *stream.Kafka) { s.kafka.Store(k) }

// Begin has it tell of a process from now on. Before, it is not ready.
func (s *Server) Begin(p *Process) { s.process.Store(p) }

// Stop has it say that the process is stopping.
func (s *Server) Stop() { s.stopping.Store(true) }

// Serve answers until ctx is done.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler(), ReadTimeout: callTimeout, WriteTimeout: callTimeout, IdleTimeout: time.Minute,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	select {
	case err := <-served: // the listener will never accept again
		return err
	case <-ctx.Done():
	}
	shut, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if server.Shutdown(shut) != nil {
		_ = server.Close() // a call that outlasts stopTimeout is cut off
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, Report{Status: "ok"}) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answer(w, s.report(r.Context())) })
	return mux
}

func (s *Server) report(ctx context.Context) Report {
	p := s.process.Load()
	switch {
	case s.stopping.Load():
		return Report{Status: unready, Reasons: "This process is stopping."}
	case p == nil:
		return Report{Status: unready, Reasons: s.starting()}
	}
	if err := p.Ready(ctx); err != nil {
		return Report{Status: unready, Reasons: Sentences(err), Warnings: p.Warnings()}
	}
	return Report{Status: "ok", Warnings: p.Warnings()}
}

// starting is what a process waits for that has not begun.
func (s *Server) starting() string {
	const starting = "This process is starting."
	k := s.kafka.Load()
	if k == nil {
		return starting
	}
	if err := k.Health(); err != nil {
		return starting + " " + Sentences(err)
	}
	return starting
}

const unready = "unavailable"

func answer(w http.ResponseWriter, r Report) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if r.Status == unready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(r) // whoever asked is gone
}
