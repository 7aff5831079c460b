package producer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Key is one API key of an app.
type Key struct {
	// Name tells keys apart in logs.
	Name string
	// Hash is the key's SHA-256: keys are random and long, so a fast hash is enough, and the key itself is kept nowhere.
	Hash [sha256.Size]byte
	// Scopes are what it may do: ScopeSend, ScopeManage, ScopeRead.
	Scopes []string
}

const (
	// ScopeSend allows messages, events, and campaigns with all their actions.
	ScopeSend = "send"
	// ScopeManage allows writing and removing devices, holding the app's traffic back, and replays.
	ScopeManage = "manage"
	// ScopeRead allows everything that changes nothing.
	ScopeRead = "read"
)

// keySecurity and operatorSecurity name the security schemes in the OpenAPI description.
const (
	keySecurity      = "key"
	operatorSecurity = "operator"
)

// caller is whose key a request bears: an app's or an operator's.
type caller struct {
	app, key string
	operator bool
}

type callerKey struct{}

// callerOf tells whose request this is. authenticate has made sure of it for every operation.
func callerOf(ctx context.Context) caller { return ctx.Value(callerKey{}).(caller) }

// appOf is the caller's app, in operations that are not for operators.
func appOf(ctx context.Context) string { return callerOf(ctx).app }

// forOperators lets an operation through for operators' keys too.
func forOperators(op huma.Operation) huma.Operation {
	op.Security = append(op.Security, map[string][]string{operatorSecurity: {}})
	return op
}

// authenticate lets an operation through for a key of one of its scopes.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	security := ctx.Operation().Security
	if len(security) == 0 {
		next(ctx)
		return
	}
	token, ok := strings.CutPrefix(ctx.Header("Authorization"), "Bearer ")
	if !ok {
		s.refuse(ctx, problem(http.StatusUnauthorized, "unauthorized", "Send the app's API key in the header Authorization: Bearer KEY."))
		return
	}
	who, scopes := s.find(strings.TrimSpace(token))
	if who.app == "" && !who.operator {
		s.refuse(ctx, problem(http.StatusUnauthorized, "unauthorized", "No app has this API key. Check it against the keys of the app in the configuration."))
		return
	}
	if who.operator {
		if len(security) < 2 {
			s.refuse(ctx, problem(http.StatusForbidden, "forbidden", "An operator's key is for /v1/lanes and /v1/control. Use a key of the app."))
			return
		}
		s.admit(ctx, who, next)
		return
	}
	if needed := security[0][keySecurity][0]; !slices.Contains(scopes, needed) {
		s.refuse(ctx, problem(http.StatusForbidden, "forbidden",
			fmt.Sprintf("The key %q has not the scope %q. Use another key, or add the scope to it in the configuration.", who.key, needed)))
		return
	}
	s.admit(ctx, who, next)
}

// admit handles a call when its app's share of calls allows it. Operators have a share of their own.
func (s *Server) admit(ctx huma.Context, who caller, next func(huma.Context)) {
	p, err := s.calls.take(ctx.Context(), who.app, 1)
	if err != nil {
		s.refuse(ctx, busy(time.Second, "As many calls of the app are being handled as may be at once. Wait as Retry-After says and send it again."))
		return
	}
	defer p.release()
	defer connBusy(ctx.Context())()
	next(huma.WithValue(ctx, callerKey{}, who))
}

type connKey struct{}

// connBusy says on a call's connection that an app's call is being handled, until done is called: connections without one make room
// first when there are too many.
func connBusy(ctx context.Context) (done func()) {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if bounded, ok := c.(interface{ Busy() (done func()) }); ok {
		return bounded.Busy()
	}
	return func() {}
}

// find compares with every key, and each in constant time, so that the time it takes tells nothing of them.
func (s *Server) find(token string) (caller, []string) {
	hash := sha256.Sum256([]byte(token))
	var who caller
	var scopes []string
	for app, keys := range s.options.Keys {
		for i := range keys {
			if subtle.ConstantTimeCompare(hash[:], keys[i].Hash[:]) == 1 {
				who, scopes = caller{app: app, key: keys[i].Name}, keys[i].Scopes
			}
		}
	}
	for i, k := range s.options.Operators {
		if subtle.ConstantTimeCompare(hash[:], s.options.Operators[i].Hash[:]) == 1 {
			who, scopes = caller{key: k.Name, operator: true}, nil
		}
	}
	return who, scopes
}

// refuse answers from a middleware.
func (s *Server) refuse(ctx huma.Context, p *Problem) {
	if p.Status == http.StatusUnauthorized {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="belfry"`)
	}
	for name, values := range p.GetHeaders() {
		ctx.SetHeader(name, values[0])
	}
	ctx.SetHeader("Content-Type", "application/problem+json")
	ctx.SetStatus(p.Status)
	// A client that is gone cannot be told.
	_ = huma.DefaultJSONFormat.Marshal(ctx.BodyWriter(), p)
}
