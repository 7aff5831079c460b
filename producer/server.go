package producer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/health"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// headerTimeout and bodyTimeout bound a client that sends slowly. Streams move their own deadlines.
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 15 * time.Second
	// lookTimeout bounds one question to Redis.
	lookTimeout = 3 * time.Second
	// maxStreams bounds the bulk streams at once: each may hold some 10 MB. An app that is alone may have half.
	maxStreams = 16
	// maxCalls bounds the calls at once, streams included: each may hold its body. An app that is alone may have half.
	maxCalls     = 4096
	callPatience = time.Second
	// streamPatience is how long the next one waits; streamTurn how long an app's only one is left to it when others wait.
	streamPatience = 5 * time.Second
	streamTurn     = 10 * time.Second
	// retryAfter is what a refused client is told to wait.
	retryAfter = 5 * time.Second
)

// Options of a Server. All must be set, but for Operators, AllowHosts, Peer and Now.
type Options struct {
	// Listener is where Run serves. Run closes it.
	Listener net.Listener
	Kafka    *stream.Kafka
	Redis    *registry.Redis
	// Keys are the API keys of each app. An app without an entry does not exist.
	Keys map[string][]Key
	// Operators are the keys of those who run Belfry. They have no scopes.
	Operators []Key
	// AllowHosts are, for each app, hosts (or host:port) of web push endpoints that may be loopback, private or plain http.
	AllowHosts map[string][]string
	// Peer is what this process was told: it is shown which others were told otherwise.
	Peer *pb.Peer
	// Version goes into the OpenAPI description.
	Version string
	Log     *slog.Logger
	// Now is time.Now, if not set.
	Now func() time.Time
}

// Server is the HTTP API. Make it with New.
type Server struct {
	options  Options
	log      *slog.Logger
	now      func() time.Time
	registry *registry.Registry
	// writer is for single calls, bulkClient for bulk streams: a client's records take turns, and nobody who waits for one
	// message should wait for megabytes of an import as well.
	writer     *writer
	bulkClient *kgo.Client

	follower *follower
	replays  *replays
	health   *health.Process
	// streams, scans and the writer's room are shared among the apps: bulk streams, calls that read topics, bytes on their way to
	// Kafka.
	streams, scans *share
	// calls are those that are being handled, open is what campaigns weigh that have not ended, and names are what is held back.
	calls, open, names *share
	// stall is how long a client may keep a stream waiting, either way.
	stall time.Duration
	// stopping ends long answers (progress, bulk) when Run's context does.
	stopping context.Context
	stop     context.CancelFunc
	handler  http.Handler
	// Each is true while the thing is known not to answer, so that it is logged once.
	kafkaDown, redisDown atomic.Bool
}

// New makes a server. It connects to nothing before Run.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	single, err := newClient(o.Kafka, 0)
	if err != nil {
		return nil, fmt.Errorf("producer: make the Kafka client: %w", err)
	}
	bulk, err := newClient(o.Kafka, bulkLinger)
	if err != nil {
		single.Close()
		return nil, fmt.Errorf("producer: make the Kafka client for bulk: %w", err)
	}
	state, err := health.New(health.Options{Kafka: o.Kafka, Redis: o.Redis, Peer: o.Peer, Counts: true, Now: o.Now})
	if err != nil {
		single.Close()
		bulk.Close()
		return nil, fmt.Errorf("producer: %w", err)
	}
	s := &Server{
		options: o, log: o.Log, now: o.Now, bulkClient: bulk,
		writer:   &writer{client: single, room: newShare(writeRoom, writePatience)},
		registry: registry.New(o.Redis),
		follower: newFollower(o.Kafka, state.Lanes(), o.Log),
		replays:  newReplays(o.Kafka, o.Log),
		health:   state,
		calls:    newShare(maxCalls, callPatience),
		streams:  newShare(maxStreams, streamPatience),
		scans:    newShare(maxScans, scanPatience),
		stall:    streamStall,
	}
	s.streams.turn = streamTurn
	s.open = newShare(maxOpenCampaigns, 0)
	s.open.kept = s.follower.weight
	s.names = newShare(maxRestraints, 0)
	s.names.kept = s.follower.restraints
	s.stopping, s.stop = context.WithCancel(context.Background())
	if s.handler, err = s.routes(); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler is what Run serves.
func (s *Server) Handler() http.Handler { return s.handler }

// Health is how the process is. Run watches over it.
func (s *Server) Health() *health.Process { return s.health }

// Run serves until ctx ends, then finishes the calls that are there. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer closeClient(s.bulkClient)
	defer closeClient(s.writer.client)
	g, ctx := errgroup.WithContext(ctx)
	follow, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      streamStall,
		IdleTimeout:       idleTimeout,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	g.Go(func() error { return s.follower.run(follow) })
	g.Go(func() error { return s.replays.run(follow) })
	g.Go(func() error { return s.health.Run(follow) })
	g.Go(func() error {
		if err := server.Serve(s.options.Listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("producer: serve the API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		// The views go on until the last call has its answer.
		defer stopFollowing()
		<-ctx.Done()
		s.stop()
		shut, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if server.Shutdown(shut) != nil {
			_ = server.Close() // calls that outlast stopTimeout are cut off; nothing of them was answered
		}
		return nil
	})
	return g.Wait()
}

func (s *Server) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Belfry", s.options.Version)
	config.Info.Description = "Push notifications to APNs, FCM and Web Push. docs/api.md explains it with examples."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		keySecurity:      {Type: "http", Scheme: "bearer", Description: "An API key of the app, from the configuration"},
		operatorSecurity: {Type: "http", Scheme: "bearer", Description: "An operator's key, from the configuration"},
	}
	// Described and shown below, offline and without huma's $schema links.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	api := humago.New(mux, config)
	api.UseMiddleware(s.authenticate, s.idempotent)
	s.deviceRoutes(api)
	s.messageRoutes(api)
	s.campaignRoutes(api)
	s.eventRoutes(api)
	s.deadRoutes(api)
	s.replayRoutes(api)
	s.laneRoutes(api)
	s.controlRoutes(api)
	s.healthRoutes(api)

	description, err := json.Marshal(api.OpenAPI())
	if err != nil {
		return nil, fmt.Errorf("producer: describe the API: %w", err)
	}
	page, err := docsPage(api.OpenAPI())
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /openapi.json", static("application/json", description))
	mux.Handle("GET /docs", static("text/html; charset=utf-8", page))
	mux.HandleFunc("/", notFound(mux))
	return s.access(mux), nil
}

// operation is what all operations under /v1 have in common.
func operation(method, path, id, scope, summary, description string, status int, errs ...int) huma.Operation {
	return huma.Operation{
		Method: method, Path: "/v1" + path, OperationID: id, Summary: summary, Description: description,
		DefaultStatus: status,
		Errors:        append(errs, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable),
		Security:      []map[string][]string{{keySecurity: {scope}}},
		// The library's 5 s would end a call that takes longer, read though its body is: the server goes on watching the
		// connection for a client that leaves.
		BodyReadTimeout: bodyTimeout,
		// Objects are read with Body: what the schema does not know is refused with its name.
		RejectUnknownQueryParameters: true,
	}
}

// access logs every call at debug: never its query, headers or body.
func (s *Server) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !s.log.Enabled(r.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, r)
			return
		}
		begun := s.now()
		next.ServeHTTP(w, r)
		s.log.Debug("api call", "method", r.Method, "route", r.Pattern, "took", s.now().Sub(begun))
	})
}

func static(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(body)
	})
}

// notFound answers what no route does, telling a wrong path from a wrong method.
func notFound(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := problem(http.StatusNotFound, "not-found", "The API has no such path. /docs lists those it has.")
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				w.Header().Add("Allow", method)
				p = problem(http.StatusMethodNotAllowed, "method-not-allowed", "Use one of the methods in the header Allow. /docs lists them.")
			}
		}
		write(w, p)
	}
}

// kafkaProblem is what a call is told whose records could not be written.
func (s *Server) kafkaProblem(err error) error {
	if errors.Is(err, errBusy) {
		return busy(time.Second, "The app has as much on its way to Kafka as it may at once. Wait as Retry-After says and send it again.")
	}
	return unavailable("Kafka did not take it in time. Wait as Retry-After says and send it again, with the same Idempotency-Key if it had one.")
}

// kafkaRefuses is what a call that would write is told at once while this process knows that Kafka takes nothing, or nil.
func (s *Server) kafkaRefuses() error {
	err := s.options.Kafka.Refuses()
	if err == nil {
		return nil
	}
	s.noteKafka(err)
	return unavailable("Kafka takes nothing just now, and nothing of this call was written. " +
		"Wait as Retry-After says and send it again, with the same Idempotency-Key if it had one.")
}

// write puts records on Kafka, or says what the caller is told.
func (s *Server) write(ctx context.Context, records ...*kgo.Record) error {
	if err := s.kafkaRefuses(); err != nil {
		return err
	}
	err := s.writer.write(ctx, callerOf(ctx).app, records...)
	s.noteKafka(err)
	if err != nil {
		return s.kafkaProblem(err)
	}
	return nil
}

// noteKafka logs the first failure after a success, and the first success after a failure.
func (s *Server) noteKafka(err error) {
	switch failed := err != nil && !errors.Is(err, errBusy) && !errors.Is(err, context.Canceled); {
	case failed && !s.kafkaDown.Swap(true):
		s.log.Warn("calls are refused until Kafka takes records again", "err", err)
	case err == nil && s.kafkaDown.Swap(false):
		s.log.Info("Kafka takes records again")
	}
}

// redisProblem is what a call is told that needs to read devices and cannot.
func (s *Server) redisProblem(err error) error {
	if errors.Is(err, registry.ErrNotBuilt) {
		return unavailable("The registry of devices is being rebuilt. Wait as Retry-After says and send it again.")
	}
	s.noteRedis(err)
	return unavailable("The registry of devices does not answer. Wait as Retry-After says and send it again.")
}

// noteRedis logs the first failure after a success, and the first success after a failure.
func (s *Server) noteRedis(err error) {
	switch was := s.redisDown.Swap(err != nil); {
	case err != nil && !was:
		s.log.Warn("Redis does not answer: messages are refused, and idempotency keys only derive ids, until it does", "err", err)
	case err == nil && was:
		s.log.Info("Redis answers again")
	}
}

// busy is what a call is told that has waited in vain for its app's share of something.
func busy(after time.Duration, detail string) *Problem {
	p := problem(http.StatusTooManyRequests, "busy", detail)
	p.retryAfter = after
	return p
}

func unavailable(detail string) *Problem {
	p := problem(http.StatusServiceUnavailable, "unavailable", detail)
	p.retryAfter = retryAfter
	return p
}

// DevicePath and CampaignPath are parts of inputs. They are exported because huma fills no others.
type DevicePath struct {
	ID string `path:"id" doc:"The device's id" example:"d-000001"`
}

type CampaignPath struct {
	ID string `path:"id" doc:"The campaign's id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" example:"winter-sale"`
}

var platformNames = func() []string {
	var names []string
	for _, p := range schemas.Platforms {
		names = append(names, schemas.PlatformName(p))
	}
	return names
}()
