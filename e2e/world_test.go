package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/simulator"
)

// realKafka and realRedis are the addresses of real ones, if there are. They are asked for within tests only: go test
// does not see what variables decide before, and would show an old result for new ones.
func realKafka() string { return os.Getenv("BELFRY_TEST_KAFKA") }
func realRedis() string { return os.Getenv("BELFRY_TEST_REDIS") }

// needReal skips a test that means nothing on the embedded ones.
func needReal(t *testing.T, why string) {
	if realKafka() == "" || realRedis() == "" {
		t.Skipf("%s: needs a real Kafka and a real Redis (BELFRY_TEST_KAFKA and BELFRY_TEST_REDIS)", why)
	}
}

// world is one deployment: providers, a configuration that names them, and a belfry that serves.
type world struct {
	t *testing.T
	options
	dir     string
	control string // of the simulator
	api     string
	env     []string // of every belfry process
	prefix  string   // of topics
	// prepare makes the topics on a real Kafka, once, when something is to run on it.
	prepare func()
	serve   *process
}

type options struct {
	devices int // of each app
	gone    float64
	apps    []string                 // demo by default
	edit    func(yaml string) string // changes the configuration
}

// newWorld starts the providers and prepares a configuration. Nothing serves yet.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	if o.apps == nil {
		o.apps = []string{"demo"}
	}
	w := &world{t: t, options: o, dir: t.TempDir(), prefix: "belfry."}
	w.simulate()
	config := filepath.Join(w.dir, "belfry.yaml")
	text := w.read("sim/belfry.yaml")
	if o.edit != nil {
		text = o.edit(text)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freeAddress(t)
	w.api = "http://" + listen
	w.env = environ(
		"BELFRY_CONFIG="+config, "BELFRY_LISTEN="+listen, "BELFRY_DATA_DIR="+filepath.Join(w.dir, "data"),
		"BELFRY_INSTANCE=e2e", "BELFRY_SERVER="+w.api, "BELFRY_KEY="+w.key("demo"),
	)
	w.shareRealOnes()
	w.prepare = sync.OnceFunc(func() {
		if realKafka() != "" {
			w.belfry("topics", "apply")
		}
	})
	return w
}

func (w *world) simulate() {
	sim := launch(w.t, "simulate", environ(), "simulate", "--dir", filepath.Join(w.dir, "sim"), "--json",
		"--receipts", filepath.Join(w.dir, "receipts.ndjson"), "--apps", strings.Join(w.apps, ","),
		"--devices", strconv.Itoa(w.devices), "--gone", strconv.FormatFloat(w.gone, 'g', -1, 64))
	until(w.t, "simulate prints its addresses", func() bool {
		if !sim.running() {
			w.t.Fatal("simulate ended")
		}
		return strings.HasSuffix(sim.out.String(), "\n")
	})
	var addresses map[string]string
	if err := json.Unmarshal([]byte(sim.out.String()), &addresses); err != nil {
		w.t.Fatal(err)
	}
	w.control = "http://" + addresses["control"]
}

// shareRealOnes puts the world on a real Kafka and Redis, under names of its own, where they are at hand.
func (w *world) shareRealOnes() {
	name := fmt.Sprintf("e2e%08x", rand.Uint32())
	if realRedis() != "" {
		w.env = append(w.env, "BELFRY_REDIS_ADDRESSES="+realRedis(), "BELFRY_REDIS_PREFIX="+name+":")
		removeKeys(w.t, name+":")
	}
	if realKafka() != "" {
		w.prefix = name + "."
		w.env = append(w.env, "BELFRY_KAFKA_BROKERS="+realKafka(), "BELFRY_KAFKA_PREFIX="+w.prefix)
		removeTopics(w.t, w.prefix)
	}
}

// start starts serve with all its roles and waits until it takes calls.
func (w *world) start() {
	w.t.Helper()
	w.prepare()
	w.serve = launch(w.t, "serve", w.env, "serve")
	w.ready(w.serve)
}

func (w *world) ready(p *process) {
	w.t.Helper()
	p.answers(w.api + "/readyz")
}

// answers waits until a URL of the process is answered with 200.
func (p *process) answers(url string) {
	p.t.Helper()
	until(p.t, p.name+" is ready", func() bool {
		if !p.running() {
			p.t.Fatalf("%s ended: %v", p.name, p.err)
		}
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// freeAddress is a loopback address that nothing listens on. It lies below the ports that the kernel hands to clients, so
// it is still free when a process that was killed starts again.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
}

// freePorts is the first of n in a row.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		first, free := 20000+rand.IntN(12000-n), 0
		for ; free < n; free++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+free))
			if err != nil {
				break
			}
			l.Close()
		}
		if free == n {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

func (w *world) read(name string) string { return readFile(w.t, filepath.Join(w.dir, name)) }

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// write makes a file for a command to read.
func (w *world) write(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// key is the app's API key.
func (w *world) key(app string) string { return strings.TrimSpace(w.read("sim/" + app + "/api-key")) }

// belfry runs a command that must succeed, and returns its standard output.
func (w *world) belfry(args ...string) string {
	w.t.Helper()
	f := command(w.t, w.env, args...)
	if f.code != 0 {
		w.t.Fatalf("belfry %v: exit status %d\n%s%s", args, f.code, f.out, f.log)
	}
	return f.out
}

// answer is what the API says.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call calls the API for an app. It fails the test only when there is no answer.
func (w *world) call(app, method, path, body string, header ...string) answer {
	w.t.Helper()
	a, err := w.try(app, method, path, body, header...)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) try(app, method, path, body string, header ...string) (a answer, err error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.api+path, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+w.key(app))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b}, err
}

// register imports the app's devices and waits until the registry has them.
func (w *world) register(app string) {
	w.t.Helper()
	f := command(w.t, append(w.env, "BELFRY_KEY="+w.key(app)), "devices", "import", filepath.Join(w.dir, "sim", app, "devices.ndjson"))
	if f.code != 0 {
		w.t.Fatalf("import devices: %s%s", f.out, f.log)
	}
	w.registered(app)
}

// registered waits for the last hundred devices: each partition of belfry.devices holds some of them, behind all others.
func (w *world) registered(app string) {
	w.t.Helper()
	for i := w.devices - 1; i >= max(0, w.devices-100); i-- {
		until(w.t, "device is registered", func() bool {
			a, err := w.try(app, http.MethodGet, fmt.Sprintf("/v1/devices/d-%06d", i), "")
			return err == nil && a.status == http.StatusOK
		})
	}
}

// everyone is a campaign to all devices. more are further fields of it in JSON, each with a comma before.
func everyone(id string, more ...string) string {
	return `{"id": "` + id + `", "launch": true, "audience": {"everyone": true},
		"message": {"title": "Hello {{ attributes.first_name | \"there\" }}", "body": "By {{ device.platform }}", "ttl": "1h"}` +
		strings.Join(more, "") + `}`
}

// campaign creates and launches one.
func (w *world) campaign(app, definition string) {
	w.t.Helper()
	if a := w.call(app, http.MethodPost, "/v1/campaigns", definition); a.status != http.StatusCreated && a.status != http.StatusAccepted {
		w.t.Fatalf("campaign: %d %s", a.status, a.body)
	}
}

// progress is how far a campaign is. It fails while nobody answers.
func (w *world) progress(app, id string) (p producer.Progress, ok bool) {
	a, err := w.try(app, http.MethodGet, "/v1/campaigns/"+id+"/progress", "")
	if err != nil || a.status != http.StatusOK {
		return p, false
	}
	return p, json.Unmarshal(a.body, &p) == nil
}

// ended waits until every delivery of a campaign has its outcome.
func (w *world) ended(app, id string) (p producer.Progress) {
	w.t.Helper()
	finished := false
	defer func() {
		if !finished {
			w.t.Logf("campaign %s: %+v", id, p)
			w.missing(app, id)
		}
	}()
	until(w.t, "campaign "+id+" finishes", func() (ok bool) {
		p, ok = w.progress(app, id)
		finished = ok && p.State == "finished" && p.Pending == 0 && p.Expanded == p.Chunks
		return finished
	})
	return p
}

// audience is how many devices a test's campaign is for: all, unless its id begins with few.
func (w *world) audience(id string) uint64 {
	if strings.HasPrefix(id, "few") {
		return uint64(strings.Count(w.read("sim/demo/devices.ndjson"), `"level":7,`))
	}
	return uint64(w.devices)
}

// few is the audience of such a campaign in JSON: devices by an attribute that some in a hundred have.
const few = `"filter": "attributes.level == 7"`

// balanced asserts the books of campaigns: by themselves, and against what the providers received.
func (w *world) balanced(all ...producer.Progress) {
	w.t.Helper()
	var accepted uint64
	for _, p := range all {
		accepted += p.Accepted
		ends := p.Accepted + p.Unregistered + p.Rejected + p.Expired + p.Cancelled + p.Dead
		if want := w.audience(p.Campaign); p.Planned != want || ends != want {
			w.t.Errorf("campaign %s: planned %d for %d devices, and %d outcomes: %+v", p.Campaign, p.Planned, want, ends, p)
		}
		if bad := p.Rejected + p.Expired + p.Cancelled + p.Dead; bad != 0 {
			w.t.Errorf("campaign %s: %d deliveries were rejected, expired, cancelled or dead: %+v", p.Campaign, bad, p)
		}
		if w.gone == 0 && p.Unregistered != 0 {
			w.t.Errorf("campaign %s: %d are unregistered, and no device is gone", p.Campaign, p.Unregistered)
		}
	}
	if sum := w.receipts(); sum.Distinct != int64(accepted) || sum.Unnamed != 0 {
		w.t.Errorf("the ledger has %d accepted; the providers have %d, and %d without an id", accepted, sum.Distinct, sum.Unnamed)
	}
}

// notRepeated asserts that the providers took at most so many deliveries of campaigns twice, beside those that they were too
// late to answer: where the machine is busy with other things, that is nobody's fault.
func (w *world) notRepeated(may int64, all ...producer.Progress) {
	w.t.Helper()
	var late int64
	for _, p := range all {
		for _, platform := range p.Platforms {
			late += int64(platform.Codes["timeout"])
		}
	}
	if sum := w.receipts(); sum.Repeats > may+late {
		w.t.Errorf("%d repeats, where %d may be and %d were not answered in time", sum.Repeats, may, late)
	}
}

// receipts is what the providers say.
func (w *world) receipts() (s simulator.Summary) {
	w.t.Helper()
	w.ask(http.MethodGet, "/receipts/summary", nil, &s)
	return s
}

// accepted counts a platform's receipts, also those whose sender did not wait for the answer.
func (w *world) accepted(platform string) int64 {
	w.t.Helper()
	w.receipts() // writes the file out
	return int64(strings.Count(w.read("receipts.ndjson"), `"platform":"`+platform+`"`))
}

// taken counts the good answers of a platform, a service or an app, whatever the map is by.
func taken(answers map[string]int64) int64 { return answers["200"] + answers["201"] }

// fault puts a fault in force.
func (w *world) fault(name string, f simulator.Fault) {
	w.t.Helper()
	w.ask(http.MethodPut, "/faults/"+name, f, nil)
}

// struck says how often the fault in force under that name has struck.
func (w *world) struck(name string) int64 {
	w.t.Helper()
	var all map[string]simulator.FaultState
	w.ask(http.MethodGet, "/faults", nil, &all)
	return all[name].Struck
}

// lift ends a fault, and asserts that it struck.
func (w *world) lift(name string) {
	w.t.Helper()
	if w.struck(name) == 0 {
		w.t.Errorf("fault %s never struck", name)
	}
	w.ask(http.MethodDelete, "/faults/"+name, nil, nil)
}

// ask calls the simulator's control API.
func (w *world) ask(method, path string, in, out any) {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.control+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(resp.Body) // the status says it already
		w.t.Fatalf("simulator: %s %s: %s %s", method, path, resp.Status, b)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			w.t.Fatal(err)
		}
	}
}

// slow makes every provider take its time, so that a campaign is long enough to be struck.
func (w *world) slow(delay time.Duration) {
	w.t.Helper()
	w.fault("slow", simulator.Fault{Kind: simulator.Latency, Delay: simulator.Duration(delay), Jitter: simulator.Duration(delay / 2)})
}
