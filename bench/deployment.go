package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/simulator"
)

// benchApp is the app of most measurements.
const benchApp = "bench"

// deployment is Belfry in processes of its own, one or more roles each, on a cluster, with providers.
type deployment struct {
	*cluster
	*providers
	program string
	say     func(string, ...any)
	// running are by name; all in the order in which they were started.
	running map[string]*process
	all     []*process
	api     string // http://host:port/v1, of the process with the role producer
}

// deploy starts what Belfry needs, and nothing of Belfry's yet.
func (e *Env) deploy(ctx context.Context, who simulator.Population, start startServer) (*deployment, error) {
	p, err := e.providers(ctx, who, start)
	if err != nil {
		return nil, err
	}
	return e.deployTo(ctx, p)
}

// deployTo does it for providers that there are. It closes them, also when it fails.
func (e *Env) deployTo(ctx context.Context, p *providers) (_ *deployment, err error) {
	d := &deployment{program: e.Belfry, say: e.Say, running: map[string]*process{}, providers: p}
	if d.cluster, err = e.cluster(ctx); err != nil {
		return nil, errors.Join(err, d.providers.close())
	}
	return d, nil
}

// peopled is a deployment with nginx for the providers, whose registry has so many devices. Nothing but what took them in is
// at work.
func (e *Env) peopled(ctx context.Context, devices int) (*deployment, error) {
	d, err := e.deploy(ctx, simulator.Population{Seed: 1, Apps: []string{benchApp}, Devices: devices}, startNginx)
	if err != nil {
		return nil, err
	}
	if _, err = d.serve(ctx, "api", "producer", "registry"); err == nil {
		err = d.enrol(ctx, benchApp, devices)
	}
	if err != nil {
		return nil, joined(err, d.close)
	}
	return d, nil
}

func (d *deployment) close() error {
	return errors.Join(stopAll(d.all), d.cluster.close(), d.providers.close())
}

// serve starts a process that runs some roles, and returns when it says that it does.
func (d *deployment) serve(ctx context.Context, name string, roles ...string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l.Close() // the API's, if the roles have one
	environ := []string{
		"BELFRY_INSTANCE=" + name, "BELFRY_LISTEN=" + l.Addr().String(),
		"BELFRY_KAFKA_BROKERS=" + strings.Join(d.Brokers, ","), "BELFRY_KAFKA_PREFIX=" + d.Prefix,
		"BELFRY_REDIS_ADDRESSES=" + strings.Join(d.redis, ","), "BELFRY_REDIS_PREFIX=" + d.redisPrefix,
		fmt.Sprintf("BELFRY_REDIS_CLUSTER=%v", len(d.redis) > 1),
	}
	p, err := start(d.dir, name, environ, d.program, "serve", "--config", filepath.Join(d.dir, "belfry.yaml"), "--roles", strings.Join(roles, ","))
	if err != nil {
		return nil, err
	}
	d.running[name], d.all = p, append(d.all, p)
	from := len(p.logged()) // of one of the same name before
	if err := p.await(ctx, func() bool { return bytes.Contains(p.logged()[from:], []byte("belfry serves")) }); err != nil {
		return nil, err
	}
	if roles[0] == "producer" {
		d.api = "http://" + l.Addr().String() + "/v1"
		return p, p.await(ctx, func() bool {
			resp, err := http.Get("http://" + l.Addr().String() + "/readyz")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	return p, nil
}

// end stops some processes, by name.
func (d *deployment) end(names ...string) (err error) {
	for _, name := range names {
		if p := d.running[name]; p != nil {
			err = errors.Join(err, p.stop())
			delete(d.running, name)
		}
	}
	return err
}

// request calls the API as an app. The caller closes the body of an answer that is none of a refusal.
func (d *deployment) request(ctx context.Context, app, method, path, contentType string, body io.Reader) (*http.Response, error) {
	a, err := d.sim.App(app)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, d.api+path, body)
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + a.APIKey}, "Content-Type": {contentType}}
	if method == http.MethodPost {
		r.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		problem, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		err := fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, problem)
		if resp.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errUnknown, err)
		}
		return nil, err
	}
	return resp, nil
}

// errUnknown is what the API says of what it does not know.
var errUnknown = errors.New("unknown")

// call calls the API with JSON.
func (d *deployment) call(ctx context.Context, app, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	resp, err := d.request(ctx, app, method, path, "application/json", &body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// enrol registers the first n of an app's devices, and waits until the registry has them.
func (d *deployment) enrol(ctx context.Context, app string, n int) error {
	d.say("registering %s devices", thousands(int64(n)))
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(d.writeDevices(w, app)) }()
	return d.register(ctx, app, firstLines(r, n), n)
}

// register registers so many devices, one a line, and waits until the registry has as many of the app.
func (d *deployment) register(ctx context.Context, app string, lines io.Reader, n int) error {
	before, err := d.registered(ctx, app)
	if err != nil {
		return err
	}
	resp, err := d.request(ctx, app, http.MethodPost, "/devices/bulk", "application/x-ndjson", lines)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	accepted := 0
	answers := bufio.NewScanner(resp.Body)
	for answers.Scan() {
		if bytes.Contains(answers.Bytes(), []byte(`"accepted"`)) {
			accepted++
		}
	}
	if err := answers.Err(); err != nil || accepted < n {
		return fmt.Errorf("%d of %d devices were accepted: %w", accepted, n, err)
	}
	for began := time.Now(); ; {
		now, err := d.registered(ctx, app)
		switch {
		case err == nil && now >= before+n:
			return nil
		case time.Since(began) > time.Minute+time.Duration(n)*time.Millisecond: // a busy machine's Redis may not answer in time now and then
			return errors.Join(fmt.Errorf("the registry has %d of %d devices after %v", now, before+n, time.Since(began)), err)
		case !pause(ctx, 10*lookEvery):
			return ctx.Err()
		}
	}
}

// registered is how many of an app's devices the registry has.
func (d *deployment) registered(ctx context.Context, app string) (int, error) {
	redis, err := d.registry()
	if err != nil {
		return 0, err
	}
	counts, err := registry.New(redis).CountDevices(ctx, app)
	if errors.Is(err, registry.ErrNotBuilt) { // a new Redis is built first
		err = nil
	}
	n := 0
	for _, c := range counts {
		n += int(c)
	}
	return n, errors.Join(err, redis.Close())
}

// launch creates a campaign under an id, and launches it.
func (d *deployment) launch(ctx context.Context, app, id string, to producer.Audience) error {
	return d.launchOf(ctx, app, id, text, to)
}

// launchOf launches a campaign of a message.
func (d *deployment) launchOf(ctx context.Context, app, id string, m message.Message, to producer.Audience) error {
	definition := producer.CampaignDefinition{ID: id, Message: m, Audience: to, Launch: true}
	return d.call(ctx, app, http.MethodPost, "/campaigns", definition, nil)
}

// cancel ends a campaign. What is on its way still ends.
func (d *deployment) cancel(ctx context.Context, app, id string) error {
	return d.call(ctx, app, http.MethodPost, "/campaigns/"+id+"/cancel", nil, nil)
}

// progress is how far it is. A launch on a busy machine may be answered before it is decided: that is waited for.
func (d *deployment) progress(ctx context.Context, app, id string) (p producer.Progress, err error) {
	for began := time.Now(); ; {
		err = d.call(ctx, app, http.MethodGet, "/campaigns/"+id+"/progress", nil, &p)
		if !errors.Is(err, errUnknown) || time.Since(began) > lostAfter || !pause(ctx, lookEvery) {
			return p, err
		}
	}
}

// finish waits until n of a campaign's deliveries are accepted. Any other end is an error.
func (d *deployment) finish(ctx context.Context, app, id string, n int) error {
	last, moved := uint64(0), time.Now()
	for {
		p, err := d.progress(ctx, app, id)
		if err != nil {
			return err
		}
		if p.Accepted > last {
			last, moved = p.Accepted, time.Now()
		}
		switch others := p.Unregistered + p.Rejected + p.Expired + p.Cancelled + p.Dead; {
		case others > 0:
			return fmt.Errorf("campaign %s: %d deliveries were not accepted: %+v", id, others, p)
		case p.Accepted == uint64(n):
			return nil
		case time.Since(moved) > lostAfter:
			return fmt.Errorf("campaign %s: nothing was accepted for %v: %+v", id, lostAfter, p)
		case !pause(ctx, 4*lookEvery):
			return ctx.Err()
		}
	}
}
