package exchangetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
)

// Encode makes a request of its own for a delivery.
func Encode(p senders.Provider, d *pb.Delivery, m *message.Compiled, now time.Time) (*senders.Request, error) {
	r := &senders.Request{}
	return r, p.Encode(r, d, m, now)
}

// Ask sends one request and waits for what becomes of it, until ctx's deadline if it has one. Without a token the error is
// senders.ErrNoToken.
func Ask(ctx context.Context, p senders.Provider, r *senders.Request) (senders.Verdict, wire.Result) {
	a := &asker{provider: p, request: r, done: make(chan struct{})}
	r.Handler = a
	if at, ok := ctx.Deadline(); ok {
		r.Timeout = time.Until(at)
	}
	p.Send([]*senders.Request{r})
	<-a.done
	return a.verdict, a.result
}

type asker struct {
	provider senders.Provider
	request  *senders.Request
	verdict  senders.Verdict
	result   wire.Result
	done     chan struct{}
}

// Answered keeps no header: it is the client's.
func (a *asker) Answered(results []wire.Result) {
	res := &results[0]
	if res.Err != senders.ErrNoToken { //nolint:errorlint // it is handed over as it is
		a.verdict = a.provider.Classify(a.request, res)
	}
	a.result = *res
	a.result.Header, a.result.Body = wire.Header{}, slices.Clone(res.Body)
	close(a.done)
}

// BothWays runs a test with the platform's library and with package wire.
func BothWays(t *testing.T, test func(t *testing.T, piped bool)) {
	t.Run("library", func(t *testing.T) { test(t, false) })
	t.Run("wire", func(t *testing.T) { test(t, true) })
}
