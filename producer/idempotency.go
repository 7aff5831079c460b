package producer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/belfry/belfry/events"
)

// The first request with a key reserves it in Redis, and leaves its answer there for those that come again. Should Redis
// lose it, or not answer, the request is handled again, and since every id in it derives from the key (derive), it asks
// for the same campaign and the same deliveries: nothing gets a second identity.
const (
	idempotencyHeader = "Idempotency-Key"
	// reservedFor outlives the slowest call; a process that dies leaves its reservations to this.
	reservedFor = 30 * time.Second
	answeredFor = 24 * time.Hour
	// storeTimeout is short: the key's protection is worth less than the call.
	storeTimeout = time.Second
	// maxKept bounds what is kept of an answer. A larger one is not replayed but made again.
	maxKept = 256 << 10
)

// answer is what Redis keeps under a key.
type answer struct {
	// Request is the digest of the request that the answer is for.
	Request string `json:"request"`
	// Status is 0 while the request is being handled.
	Status int               `json:"status,omitempty"`
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`
}

type idempotencyKey struct{}

// idempotent replays the answer of a POST whose key was seen. Bulk streams pass: their lines are idempotent each for
// itself, by id, and their answers have no bound.
func (s *Server) idempotent(ctx huma.Context, next func(huma.Context)) {
	op, key := ctx.Operation(), ctx.Header(idempotencyHeader)
	if op.Method != http.MethodPost || key == "" {
		next(ctx)
		return
	}
	if fault := events.NameFault(key); fault != "" {
		s.refuse(ctx, problem(http.StatusUnprocessableEntity, "invalid", "Mend the header and send it again.",
			Fault{"header." + idempotencyHeader, fault}))
		return
	}
	ctx = huma.WithValue(ctx, idempotencyKey{}, key)
	if op.MaxBodyBytes < 0 {
		next(ctx)
		return
	}
	body, p := readAll(ctx, op.MaxBodyBytes)
	if p != nil {
		s.refuse(ctx, p)
		return
	}
	url := ctx.URL()
	hash := sha256.New()
	for _, part := range [][]byte{[]byte(op.Method), []byte(url.RequestURI()), body} {
		sum := sha256.Sum256(part)
		hash.Write(sum[:])
	}
	recorded := &recorder{humaContext: ctx, in: bytes.NewReader(body), header: map[string]string{}}
	s.once(recorded, s.storeKey(appOf(ctx.Context()), key), hex.EncodeToString(hash.Sum(nil)), next)
}

// once handles the request if it is the first with its key, else answers as the first was answered.
func (s *Server) once(ctx *recorder, key, request string, next func(huma.Context)) {
	before, err := s.reserve(ctx.Context(), key, request)
	s.noteRedis(err)
	switch {
	case err != nil:
		next(ctx)
		ctx.send()
		return
	case before == nil:
		// Below.
	case before.Request != request:
		s.refuse(ctx.humaContext, problem(http.StatusUnprocessableEntity, "idempotency-reused",
			"Take a new Idempotency-Key for another request, or send the first one unchanged.",
			Fault{"header." + idempotencyHeader, "belongs to a request with another path or body"}))
		return
	case before.Status == 0:
		p := problem(http.StatusConflict, "idempotency-running", "Wait as Retry-After says and send it again to see its answer.")
		p.retryAfter = time.Second
		s.refuse(ctx.humaContext, p)
		return
	default:
		ctx.status, ctx.header = before.Status, before.Header
		ctx.out.Write(before.Body)
		ctx.header["Idempotent-Replayed"] = "true"
		ctx.send()
		return
	}
	// The reservation goes when the handler panics, too: nothing is known of the request then.
	defer func() { s.keep(key, request, ctx) }()
	next(ctx)
}

// reserve returns nil when the key is now this request's, else what is under it.
func (s *Server) reserve(ctx context.Context, key, request string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	reservation, err := json.Marshal(answer{Request: request})
	if err != nil {
		return nil, err
	}
	// SET NX GET would be one call, but Redis before 7 refuses it.
	for range 2 {
		ok, err := s.options.Redis.SetNX(ctx, key, reservation, reservedFor).Result()
		if err != nil || ok {
			return nil, err
		}
		raw, err := s.options.Redis.Get(ctx, key).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // it ended between the two
		}
		if err != nil {
			return nil, err
		}
		before := &answer{}
		return before, json.Unmarshal(raw, before)
	}
	return &answer{Request: request}, nil
}

// keep stores the answer, and then gives it: whoever has seen an answer will see the same again.
func (s *Server) keep(key, request string, ctx *recorder) {
	store, cancel := context.WithTimeout(context.WithoutCancel(ctx.Context()), storeTimeout)
	defer cancel()
	var err error
	if ctx.final() {
		var kept []byte
		kept, err = json.Marshal(answer{Request: request, Status: ctx.status, Header: ctx.header, Body: ctx.out.Bytes()})
		if err == nil {
			err = s.options.Redis.Set(store, key, kept, answeredFor).Err()
		}
	} else {
		err = s.options.Redis.Del(store, key).Err()
	}
	s.noteRedis(err)
	ctx.send()
}

func (s *Server) storeKey(app, key string) string {
	sum := sha256.Sum256([]byte(key))
	return s.options.Redis.Prefix + "idempotency:{" + app + "}:" + hex.EncodeToString(sum[:])
}

// derive makes an id for what a request asks for: from its idempotency key the same each time, else a new one.
func derive(ctx context.Context, what string) string {
	key, ok := ctx.Value(idempotencyKey{}).(string)
	if !ok {
		return uuid.NewString()
	}
	return hashID(what, appOf(ctx), key)
}

// hashID is a UUIDv8 (RFC 9562 section 5.8) of the parts.
func hashID(parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		sum := sha256.Sum256([]byte(part))
		hash.Write(sum[:])
	}
	id := uuid.UUID(hash.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// readAll reads a body of at most limit bytes.
func readAll(ctx huma.Context, limit int64) ([]byte, *Problem) {
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), limit+1))
	if err != nil {
		if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
			return nil, problem(http.StatusRequestTimeout, "malformed", sentence(http.StatusRequestTimeout, ""))
		}
		return nil, problem(http.StatusBadRequest, "malformed", "The body ended early. Send it again.")
	}
	if int64(len(body)) > limit {
		return nil, tooLarge(limit)
	}
	return body, nil
}

type humaContext huma.Context

// recorder holds an answer back until it is kept.
type recorder struct {
	humaContext
	in     *bytes.Reader
	status int
	header map[string]string
	out    bytes.Buffer
}

func (r *recorder) BodyReader() io.Reader           { return r.in }
func (r *recorder) BodyWriter() io.Writer           { return &r.out }
func (r *recorder) SetStatus(status int)            { r.status = status }
func (r *recorder) Status() int                     { return r.status }
func (r *recorder) SetHeader(name, value string)    { r.header[name] = value }
func (r *recorder) AppendHeader(name, value string) { r.header[name] = value }

// final tells whether the answer will be the same however often it is asked for. What was refused for want of
// something else (Kafka, room, a decision) is not.
func (r *recorder) final() bool {
	if r.header["Retry-After"] != "" {
		return false
	}
	switch r.status {
	case 0, http.StatusTooManyRequests, http.StatusNotFound:
		return false
	case http.StatusAccepted:
		// Of an action that is answered with 200, 202 says that it is not decided yet.
		return r.Operation().DefaultStatus == http.StatusAccepted && r.out.Len() <= maxKept
	}
	return r.status < 500 && r.out.Len() <= maxKept
}

func (r *recorder) send() {
	for name, value := range r.header {
		r.humaContext.SetHeader(name, value)
	}
	if r.status != 0 {
		r.humaContext.SetStatus(r.status)
	}
	_, _ = r.out.WriteTo(r.humaContext.BodyWriter()) // a client that is gone cannot be told
}
