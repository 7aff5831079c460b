package bench

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/priority"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/simulator"
)

// Latency measures the time from an API call for a transactional message to its request at the provider, with nothing else
// to do and during campaigns on the same credentials, and what the least of it takes: one HTTP hop and one produced record.
// Each role is in a process of its own. What stands for machines of their own (the caller, the providers, an embedded Kafka and
// Redis) and what is urgent have real-time priority where they may: the fan-out and the bulk lanes leave it by themselves.
type Latency struct {
	// Devices are whom each of the Campaigns goes to.
	Devices, Campaigns int
	Rounds             int
	// Calls are made in each part of a round, one every Every, whether or not earlier ones have been answered.
	Calls int
	Every time.Duration
}

// Run implements Bench.
func (b Latency) Run(ctx context.Context, e *Env) (_ Report, err error) {
	l, err := b.open(ctx, e, simulator.Mix{APNs: 1}, onAPNs)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, l.close) }()
	hop, closeHop, err := l.hop()
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, closeHop) }()
	if _, err := l.idle(ctx); err != nil { // connections, and the first code to run
		return nil, err
	}
	const blast, idle, least = "during campaigns", "idle", "one HTTP hop and one produce"
	c := &contest{unit: "ms, p99", rounds: b.Rounds, env: e, sides: []side{{blast, l.blast}, {idle, l.idle}, {least, hop}}}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	r := c.result("latency", goal{of: byValue, against: idle, most: 2}, goal{of: byValue, engine: idle, against: least})
	r.Note = l.note(e)
	return r, nil
}

// open starts all of Belfry, with nginx for the providers, and registers the devices and those whose requests it notes.
func (b Latency) open(ctx context.Context, e *Env, mix simulator.Mix, to ...marked) (*latency, error) {
	l := &latency{Latency: b, to: to}
	err := l.claimCores()
	if err != nil {
		return nil, err
	}
	l.deployment, err = e.deploy(ctx, simulator.Population{Seed: 1, Apps: []string{benchApp}, Devices: b.Devices, Mix: mix}, startNginx)
	if err != nil {
		return nil, joined(err, l.releaseCores)
	}
	if err = l.serveAll(ctx); err == nil {
		err = l.enrol(ctx)
	}
	if err != nil {
		return nil, joined(err, l.close)
	}
	return l, nil
}

type latency struct {
	Latency
	*deployment
	to    []marked
	round int
	// releaseCores undoes claimCores.
	releaseCores func() error
	realtime     bool
}

func (l *latency) close() error { return errors.Join(l.deployment.close(), l.releaseCores()) }

// claimCores gives this process, and what it starts, real-time priority, where that may be.
func (l *latency) claimCores() error {
	back, err := priority.Realtime()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		l.releaseCores = func() error { return nil }
		return nil
	}
	l.releaseCores, l.realtime = back, err == nil
	return err
}

// note says what the figures hang on.
func (l *latency) note(e *Env) string {
	first := "with real-time priority"
	if !l.realtime {
		first = "without real-time priority, which this user may not have"
	}
	return e.kind() + ", " + first + "; arrivals are known to 1 ms"
}

// marked is a device whose requests nginx notes.
type marked struct {
	device string
	// line is it as the API takes it, with its target at addr.
	line func(addr string) (string, error)
	// note is what nginx notes of a delivery to it.
	note func(id simulator.ID) string
}

var (
	onAPNs = marked{
		"urgent-apns",
		func(string) (string, error) {
			return fmt.Sprintf(`{"id":"urgent-apns","apns":{"token":%q}}`, mark+strings.Repeat("0", 64-len(mark))), nil
		},
		func(id simulator.ID) string { return uuid.UUID(id).String() }, // its apns-id
	}
	onWebPush = marked{
		"urgent-webpush",
		func(addr string) (string, error) {
			key, err := ecdh.P256().GenerateKey(rand.Reader)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf(`{"id":"urgent-webpush","webpush":{"endpoint":"https://%s/%s","p256dh":%q,"auth":%q}}`, addr, mark,
				base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), base64.RawURLEncoding.EncodeToString(make([]byte, 16))), nil
		},
		func(id simulator.ID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }, // its Topic
	}
)

func (l *latency) enrol(ctx context.Context) error {
	if err := l.deployment.enrol(ctx, benchApp, l.Devices); err != nil {
		return err
	}
	for _, m := range l.to {
		line, err := m.line(l.addr)
		if err == nil {
			err = l.register(ctx, benchApp, strings.NewReader(line+"\n"), 1)
		}
		if err != nil {
			return err
		}
	}
	return l.warm(ctx, "warm")
}

// paced calls ask at its times, and is the sample of how long each took by what it returns.
func (l *latency) paced(ctx context.Context, ask func(i int) error, took func() ([]time.Duration, error)) (s sample, err error) {
	ticks := time.NewTicker(l.Every)
	defer ticks.Stop()
	var calls errgroup.Group
	for i := range l.Calls {
		select {
		case <-ctx.Done():
			return s, errors.Join(ctx.Err(), calls.Wait())
		case <-ticks.C:
		}
		calls.Go(func() error { return ask(i) })
	}
	if err := calls.Wait(); err != nil {
		return s, err
	}
	times, err := took()
	return sample{value: p99(times), ops: float64(len(times)), allocs: noAllocs}, err
}

// idle makes the calls and waits for their arrivals.
func (l *latency) idle(ctx context.Context) (sample, error) {
	called, notes := make([]time.Time, l.Calls), make([]string, l.Calls)
	return l.paced(ctx, func(i int) error {
		to := l.to[i%len(l.to)]
		called[i] = time.Now()
		var answer producer.MessageAnswer
		ask := producer.MessageCall{To: producer.Recipients{{Device: to.device}}, Message: text}
		err := l.call(ctx, benchApp, http.MethodPost, "/messages", ask, &answer)
		notes[i] = to.note(schemas.DeliveryID(benchApp, answer.ID, to.device, 0))
		return err
	}, func() ([]time.Duration, error) {
		arrived, err := l.arrivals(ctx, notes)
		took := make([]time.Duration, len(arrived))
		for i, at := range arrived {
			took[i] = max(0, at.Sub(called[i]))
		}
		return took, err
	})
}

// arrivals are when the requests that are noted so were done at the provider, once all are there.
func (l *latency) arrivals(ctx context.Context, notes []string) ([]time.Time, error) {
	arrived := make([]time.Time, len(notes))
	for began := time.Now(); ; {
		noted, err := os.ReadFile(filepath.Join(l.dir, "arrivals"))
		if err != nil {
			return nil, err
		}
		at := map[string]time.Time{}
		for line := range strings.Lines(string(noted)) {
			seconds, note, _ := strings.Cut(strings.TrimSpace(line), " ")
			ms, err := strconv.ParseInt(strings.ReplaceAll(seconds, ".", ""), 10, 64) // always three decimals
			if _, twice := at[note]; err == nil && !twice {
				at[note] = time.UnixMilli(ms)
			}
		}
		missing := 0
		for i, note := range notes {
			if arrived[i] = at[note]; arrived[i].IsZero() {
				missing++
			}
		}
		switch {
		case missing == 0:
			return arrived, nil
		case time.Since(began) > lostAfter:
			return nil, fmt.Errorf("%d of %d messages did not arrive within %v", missing, len(notes), lostAfter)
		case !pause(ctx, 10*lookEvery):
			return nil, ctx.Err()
		}
	}
}

// blast is idle while campaigns are under way.
func (l *latency) blast(ctx context.Context) (s sample, err error) {
	l.round++
	ids := make([]string, l.Campaigns)
	for i := range ids {
		ids[i] = fmt.Sprintf("blast-%d-%d", l.round, i)
		if err := l.launch(ctx, benchApp, ids[i], producer.Audience{Everyone: true}); err != nil {
			return s, err
		}
	}
	began, before, err := l.sent(ctx, ids, func(n int) bool { return n >= 1000 })
	if err != nil {
		return s, err
	}
	if s, err = l.idle(ctx); err != nil {
		return s, err
	}
	now, after, err := l.sent(ctx, ids, func(int) bool { return true })
	if err != nil {
		return s, err
	}
	l.say("the campaigns went on at %.0f/s meanwhile", float64(after-before)/now.Sub(began).Seconds())
	if after == l.Campaigns*l.Devices {
		return s, fmt.Errorf("the campaigns to %d devices were over before the %d calls were: take more", after, l.Calls)
	}
	for _, id := range ids {
		if err := l.cancelOpen(ctx, id); err != nil {
			return s, err
		}
	}
	return s, l.quiet(ctx, ids)
}

// cancelOpen ends a campaign that is not over.
func (l *latency) cancelOpen(ctx context.Context, id string) error {
	refused := l.cancel(ctx, benchApp, id)
	if refused == nil {
		return nil
	}
	if p, err := l.progress(ctx, benchApp, id); err != nil || p.State != "finished" {
		return errors.Join(refused, err)
	}
	return nil
}

// sent is how many deliveries of some campaigns are accepted, once enough are.
func (l *latency) sent(ctx context.Context, ids []string, enough func(int) bool) (at time.Time, n int, err error) {
	for began := time.Now(); ; {
		n = 0
		for _, id := range ids {
			p, err := l.progress(ctx, benchApp, id)
			if err != nil {
				return at, n, err
			}
			n += int(p.Accepted)
		}
		switch {
		case enough(n):
			return time.Now(), n, nil
		case time.Since(began) > lostAfter:
			return at, n, fmt.Errorf("only %d deliveries of the campaigns were accepted within %v", n, lostAfter)
		case !pause(ctx, 4*lookEvery):
			return at, n, ctx.Err()
		}
	}
}

// quiet waits until cancelled campaigns have come to rest.
func (l *latency) quiet(ctx context.Context, ids []string) error {
	for last := -1; ; {
		_, n, err := l.sent(ctx, ids, func(int) bool { return true })
		if err != nil || n == last {
			return err
		}
		last = n
		if !pause(ctx, rest) {
			return ctx.Err()
		}
	}
}

// hop is the least that must happen: a call over HTTP whose handler produces a record and waits until Kafka has it.
func (l *latency) hop() (run func(context.Context) (sample, error), closeAll func() error, err error) {
	client, err := l.Client(kgo.ProducerLinger(0))
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			record := &kgo.Record{Topic: l.Topic(schemas.TopicDeadOf(schemas.TopicEvents)), Value: body}
			err = client.ProduceSync(r.Context(), record).FirstErr()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // until it is closed
	closeAll = func() error {
		err := server.Close()
		serving.Wait()
		client.Close()
		return err
	}
	body := bytes.Repeat([]byte("x"), 300) // as long as an urgent delivery's record
	run = func(ctx context.Context) (sample, error) {
		took := make([]time.Duration, l.Calls)
		return l.paced(ctx, func(i int) error {
			began := time.Now()
			resp, err := http.Post("http://"+listener.Addr().String(), "application/json", bytes.NewReader(body))
			if err != nil {
				return err
			}
			took[i] = time.Since(began)
			if resp.Body.Close(); resp.StatusCode != http.StatusOK {
				return fmt.Errorf("the hop answers %s", resp.Status)
			}
			return nil
		}, func() ([]time.Duration, error) { return took, nil })
	}
	return run, closeAll, nil
}
