package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/belfry/belfry/senders/wire"
)

// inFlight is how many requests are out at a time on one connection: nearly all of its streams.
const inFlight = 900

// Wire measures senders/wire on one connection to nghttpd against h2load and against apns2 with its own transport: the same
// request, over and over.
type Wire struct {
	Rounds int
	// For is how long each side works in a round.
	For time.Duration
}

// pushBody is what a push is like once it is made.
const pushBody = `{"aps":{"alert":{"title":"Hello Željko","body":"You are on level 12, and this came to you by apns"},"sound":"default"}}`

// pushFields are an APNs request's, in the order in which Belfry sends them.
func pushFields() []wire.Field {
	return []wire.Field{
		{Name: "authorization", Value: "bearer " + fmt.Sprintf("%0180d", 7), Kind: wire.Shared},
		{Name: "apns-topic", Value: "com.example.bench", Kind: wire.Shared},
		{Name: "apns-push-type", Value: "alert", Kind: wire.Shared},
		{Name: "apns-priority", Value: "10", Kind: wire.Shared},
		{Name: "apns-expiration", Value: "1800000000", Kind: wire.Shared},
	}
}

// Run implements Bench.
func (b Wire) Run(ctx context.Context, e *Env) (_ Report, err error) {
	s, err := startNghttpd(ctx, e.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, s.stop) }()
	var headers []string
	for _, f := range pushFields() {
		headers = append(headers, f.Name+": "+f.Value)
	}
	body, err := e.file("push.json", pushBody)
	if err != nil {
		return nil, err
	}
	apns, err := apns2Side(s, []byte(pushBody), b.For)
	if err != nil {
		return nil, err
	}
	// It takes a number of requests, not a time.
	warm, err := h2load(ctx, s, 20_000, body, headers)
	if err != nil {
		return nil, err
	}
	n := int(warm.value * b.For.Seconds())
	c := &contest{unit: "requests/s", rounds: b.Rounds, env: e, sides: []side{
		{"senders/wire", wireSide(s, same(nghttpdPath, pushBody, pushFields()), b.For)},
		{"h2load", func(ctx context.Context) (sample, error) { return h2load(ctx, s, n, body, headers) }},
		{"apns2", apns},
	}}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	return c.result("wire",
		goal{of: byValue, against: "h2load", least: 0.9},
		goal{of: byCPU, against: "h2load", most: 1.5},
		goal{of: perCPU, against: "apns2", least: 20}), nil
}

// same is one request, as often as there are streams for it.
func same(path, body string, fields []wire.Field) []*wire.Request {
	all := make([]*wire.Request, inFlight)
	for i := range all {
		all[i] = &wire.Request{Path: path, Fields: fields, Body: []byte(body)}
	}
	return all
}

// wireSide keeps one connection of senders/wire busy for a while with some requests, each again once it is answered.
func wireSide(s *server, requests []*wire.Request, d time.Duration) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		client := wire.New(wire.Options{Addr: s.addr, TLS: s.tls(), MaxConns: 1})
		defer client.Close()
		l := &loop{client: client, over: make(chan struct{})}
		for _, r := range requests {
			r.Handler = l
		}
		m, err := newMeter(s.process)
		if err != nil {
			return sample{}, err
		}
		l.until, l.out = m.began.Add(d), len(requests)
		client.Send(requests)
		select {
		case <-l.over:
		case <-ctx.Done():
			return sample{}, ctx.Err()
		}
		if l.err != nil {
			return sample{}, l.err
		}
		return m.end(l.done)
	}
}

// loop sends each request again once it is answered, until the time is over.
type loop struct {
	client *wire.Client
	until  time.Time
	over   chan struct{}
	batch  []*wire.Request // of Answered, which one goroutine calls: there is one connection

	mu   sync.Mutex // guards all below: a failed dial is told by another goroutine
	done int
	out  int
	err  error
}

// Answered implements wire.Handler.
func (l *loop) Answered(results []wire.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = l.batch[:0]
	again := l.err == nil && time.Now().Before(l.until)
	for i := range results {
		switch r := &results[i]; {
		case r.Err != nil && l.err == nil:
			l.err = r.Err
		case r.Err == nil && r.Status/100 != 2 && l.err == nil:
			l.err = fmt.Errorf("status %d", r.Status)
		}
		if again {
			l.batch = append(l.batch, results[i].Request)
		}
	}
	l.done += len(results)
	if again = again && l.err == nil; again {
		l.client.Send(l.batch)
		return
	}
	if l.out -= len(results); l.out == 0 {
		close(l.over)
	}
}
