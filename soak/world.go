package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/soak/proxy"
	"github.com/belfry/belfry/stream"
)

// world is one deployment: a process for each role or two, a Kafka, a Redis, and the simulated providers, with a proxy on
// every way between them.
type world struct {
	options
	repo string
	dir  string // everything that is written
	env  []string

	kafka     *kafka
	redisDir  string
	redis     *proxy.Proxy
	providers map[string]*proxy.Proxy // by service
	simulator *process
	control   string
	api       string
	key       string

	// Of the roles' clocks, drawn by the one goroutine that starts their processes.
	clocks *rand.Rand
	skews  []time.Duration

	mu        sync.Mutex // guards instances
	instances []*instance
}

// instance is one belfry process that runs one role.
type instance struct {
	*process
	w        *world
	role     string
	platform string // of senders
}

// instances by role: those that many of are needed for rebalances have two. Of one platform two processes have a class each,
// beside one that has both.
var layout = []struct {
	role string
	n    int
}{
	{"producer", 1},
	{"registry", 1},
	{"trigger", 1},
	{"fanout", 2},
	{"senders.apns", 1},
	{"senders.apns.urgent", 1},
	{"senders.apns.bulk", 1},
	{"senders.fcm", 2},
	{"senders.webpush", 2},
	{"ledger", 2},
	{"replay", 1},
}

// services in the order of their ports (docs/simulator.md); the control API comes after them.
var services = []string{"apns", "apns-sandbox", "fcm", "oauth", "chrome", "mozilla", "apple", "windows"}

const sendersTimeout = 4 * time.Second

func newWorld(o options) (_ *world, err error) {
	w := &world{options: o, providers: map[string]*proxy.Proxy{}, clocks: rand.New(rand.NewPCG(o.seed, 5))}
	if w.repo, err = os.Getwd(); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp("", "belfry-soak-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	steps := []func() error{w.build, w.startSimulator, w.startRedis, func() error {
		w.kafka, err = w.startKafka(o.kafka)
		return err
	}, w.startRoles, w.register}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) build() error {
	if _, err := os.Stat(filepath.Join(w.repo, "cmd", "belfry")); err != nil {
		return errors.New("run it in Belfry's repository: make soak")
	}
	files, err := overlay(w.dir)
	if err != nil {
		return err
	}
	_, err = command(w.repo, nil, "go", "build", "-overlay", files, "-o", filepath.Join(w.dir, "belfry"), "./cmd/belfry")
	return err
}

func (w *world) belfry() string { return filepath.Join(w.dir, "belfry") }

// skew is how far the providers' clock is off.
func (w *world) skew() time.Duration { return time.Duration(w.seed%51)*time.Second - 25*time.Second }

// startSimulator starts it on 127.0.0.2, under the name of 127.0.0.1, where the proxies are.
func (w *world) startSimulator() error {
	port := freePorts(len(services) + 1)
	w.simulator = &process{name: "simulator", dir: w.dir, args: []string{
		w.belfry(), "simulate", "--dir", filepath.Join(w.dir, "sim"), "--listen", "127.0.0.2", "--host", "127.0.0.1",
		"--port", strconv.Itoa(port), "--devices", strconv.Itoa(w.devices), "--receipts", filepath.Join(w.dir, "receipts.ndjson"),
		"--seed", strconv.FormatUint(w.seed, 10), "--clock-skew", w.skew().String(),
	}}
	if err := w.simulator.start(); err != nil {
		return err
	}
	for i, name := range services {
		p, err := proxy.Listen("127.0.0.1:"+strconv.Itoa(port+i), "127.0.0.2:"+strconv.Itoa(port+i))
		if err != nil {
			return err
		}
		w.providers[name] = p
	}
	w.control = "http://127.0.0.2:" + strconv.Itoa(port+len(services))
	err := waitFor("the simulator has written its files", func() bool {
		log, err := os.ReadFile(filepath.Join(w.dir, "simulator.log"))
		return err == nil && strings.Contains(string(log), "Ready.")
	})
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(w.dir, "sim", "demo", "api-key"))
	w.key = strings.TrimSpace(string(key))
	return err
}

func (w *world) startRedis() error {
	w.redisDir = filepath.Join(w.dir, "redis")
	address, err := command("", nil, filepath.Join(w.repo, "scripts", "redis", "redis-start"), "--dir", w.redisDir)
	if err != nil {
		return err
	}
	w.redis, err = proxy.Listen("127.0.0.1:0", address)
	return err
}

// loseRedis kills Redis and starts it empty; rebuild fills it again.
func (w *world) loseRedis() error {
	pid, err := os.ReadFile(filepath.Join(w.redisDir, "nodes", "1", "pid"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill Redis: %w", err)
	}
	return waitFor("Redis is gone", func() bool { return syscall.Kill(n, 0) != nil })
}

func (w *world) restartRedis() error {
	_, err := command("", nil, filepath.Join(w.repo, "scripts", "redis", "redis-start"), "--dir", w.redisDir)
	return err
}

// rebuild has Redis filled. The registry role does that for its devices by itself too, and then this waits for it.
func (w *world) rebuild() (err error) {
	_ = waitFor("Redis is rebuilt", func() bool { // err says more
		_, err = command(w.dir, append(w.env, "BELFRY_INSTANCE=rebuild"), w.belfry(), "rebuild")
		return err == nil || !strings.Contains(err.Error(), "being rebuilt already")
	})
	return err
}

func (w *world) startRoles() error {
	listen := "127.0.0.1:" + strconv.Itoa(freePorts(1))
	w.api = "http://" + listen
	w.env = []string{
		"BELFRY_CONFIG=" + filepath.Join(w.dir, "sim", "belfry.yaml"), "BELFRY_LISTEN=" + listen,
		"BELFRY_KAFKA_BROKERS=" + strings.Join(w.kafka.addresses(), ","), "BELFRY_REDIS_ADDRESSES=" + w.redis.Addr(),
		"BELFRY_SENDERS_TIMEOUT=" + sendersTimeout.String(), "BELFRY_SERVER=" + w.api, "BELFRY_KEY=" + w.key,
	}
	if _, err := command(w.dir, w.env, w.belfry(), "topics", "apply"); err != nil {
		return err
	}
	// Redis is empty, and that is right; but nobody may take an unbuilt one for the truth.
	if err := w.rebuild(); err != nil {
		return err
	}
	for _, l := range layout {
		for i := range l.n {
			one := w.instance(l.role, string(rune('a'+i)))
			w.join(one)
			if err := one.start(); err != nil {
				return err
			}
		}
	}
	return waitFor("the API is ready", w.ready)
}

func (w *world) instance(role, suffix string) *instance {
	name := role + "-" + suffix
	_, platform, _ := strings.Cut(role, ".")
	platform, _, _ = strings.Cut(platform, ".") // what follows is a class
	return &instance{w: w, role: role, platform: platform, process: &process{
		name: name, dir: w.dir, args: []string{w.belfry(), "serve"},
		env: append(slices.Clone(w.env), "BELFRY_ROLES="+role, "BELFRY_INSTANCE="+name),
	}}
}

func (w *world) join(i *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instances = append(w.instances, i)
}

func (w *world) leave(i *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instances = slices.DeleteFunc(w.instances, func(one *instance) bool { return one == i })
}

// of lists the instances of a role; "" is all.
func (w *world) of(role string) []*instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.instances), func(i *instance) bool { return role != "" && i.role != role })
}

// joined tells whether an instance is known to be a member of any group.
func (w *world) joined(i *instance) bool {
	client, err := w.cluster().Client()
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	groups, _ := kadm.NewClient(client).DescribeGroups(ctx) // what it could not describe is not known
	for _, g := range groups {
		if slices.ContainsFunc(g.Members, func(m kadm.DescribedGroupMember) bool { return m.InstanceID != nil && *m.InstanceID == i.name }) {
			return true
		}
	}
	return false
}

func (w *world) ready() bool {
	resp, err := http.Get(w.api + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// register imports the devices and waits until the registry has the last of them.
func (w *world) register() error {
	if _, err := command(w.dir, w.env, w.belfry(), "devices", "import", filepath.Join(w.dir, "sim", "demo", "devices.ndjson")); err != nil {
		return err
	}
	for i := w.devices - 1; i >= max(0, w.devices-100); i-- {
		err := waitFor("the registry has the devices", func() bool {
			status, _, err := w.call(context.Background(), http.MethodGet, fmt.Sprintf("/v1/devices/d-%06d", i), "", nil)
			return err == nil && status == http.StatusOK
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cluster is for the harness's own clients, past the proxies where that is possible.
func (w *world) cluster() *stream.Kafka {
	return &stream.Kafka{Brokers: w.kafka.direct, Prefix: "belfry.", Instance: "soak", Log: slog.New(slog.DiscardHandler)}
}

// close ends everything that was started, and removes what was written unless it is to be kept.
func (w *world) close() {
	for _, i := range w.of("") {
		if i.running() {
			i.signal(syscall.SIGCONT)
			i.kill()
		}
	}
	if w.kafka != nil {
		_ = w.kafka.stop() // what is left of it is named in the folder
		for _, p := range w.kafka.proxies {
			p.Close()
		}
	}
	if w.redisDir != "" {
		_, _ = command("", nil, filepath.Join(w.repo, "scripts", "redis", "redis-stop"), "--dir", w.redisDir)
	}
	if w.redis != nil {
		w.redis.Close()
	}
	for _, p := range w.providers {
		p.Close()
	}
	if w.simulator != nil {
		w.simulator.kill()
	}
	if !w.keep {
		_ = os.RemoveAll(w.dir)
	}
}

// call calls Belfry's API.
func (w *world) call(ctx context.Context, method, path, idempotency string, body any) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return w.ask(ctx, method, w.api+path, body, func(h http.Header) {
		h.Set("Authorization", "Bearer "+w.key)
		if idempotency != "" {
			h.Set("Idempotency-Key", idempotency)
		}
	})
}

func (w *world) ask(ctx context.Context, method, url string, body any, header func(http.Header)) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if header != nil {
		header(req.Header)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, out, err
}

// receipts is what the providers have taken and answered.
func (w *world) receipts() (s simulator.Summary, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	status, body, err := w.ask(ctx, http.MethodGet, w.control+"/receipts/summary", nil, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("simulator: %d %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// fault puts a fault of a provider in force; a nil one lifts it, and returns how often it struck.
func (w *world) fault(name string, f *simulator.Fault) (struck int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if f != nil {
		status, body, err := w.ask(ctx, http.MethodPut, w.control+"/faults/"+name, f, nil)
		if err == nil && status >= 300 {
			err = fmt.Errorf("fault %+v: %d %s", *f, status, body)
		}
		return 0, err
	}
	_, body, err := w.ask(ctx, http.MethodGet, w.control+"/faults", nil, nil)
	if err != nil {
		return 0, err
	}
	var all map[string]simulator.FaultState
	if err := json.Unmarshal(body, &all); err != nil {
		return 0, err
	}
	_, _, err = w.ask(ctx, http.MethodDelete, w.control+"/faults/"+name, nil, nil)
	return all[name].Struck, err
}

// patience is how long the harness waits for what must come; the machine may be busy with anything.
const patience = 90 * time.Second

func waitFor(what string, there func() bool) error {
	for end := time.Now().Add(patience); !there(); {
		if time.Now().After(end) {
			return fmt.Errorf("%s: did not come in %v", what, patience)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func listens(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// freePorts finds n ports in a row that nothing listens on, below those that the kernel hands to clients, on both of the
// loopback addresses that are used.
func freePorts(n int) int {
next:
	for {
		first := 20000 + rand.IntN(12000-n)
		for i := range n {
			for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
				l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+i)))
				if err != nil {
					continue next
				}
				l.Close()
			}
		}
		return first
	}
}
