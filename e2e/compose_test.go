package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/belfry/belfry/config"
)

// composed is docker-compose.yml without containers: each service's own command, environment and configuration, with what
// a container would give it put in its place: names of hosts, ports and folders.
type composed struct {
	*world
	services map[string]composeService
	config   string
	listen   string
	place    *strings.Replacer
	args     map[string]string // arguments that are replaced whole
	checks   map[string]string // the addresses that health checks of what was launched ask
}

type composeService struct {
	Build       string
	Command     []string
	Environment map[string]string
	Healthcheck struct{ Test []string }
}

func compose(t *testing.T) *composed {
	t.Helper()
	var file struct{ Services map[string]composeService }
	if err := yaml.Unmarshal([]byte(readFile(t, "../docker-compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	c := &composed{
		world:    &world{t: t, options: options{devices: 1000, apps: []string{"demo"}}, dir: t.TempDir()},
		services: file.Services, listen: freeAddress(t), checks: map[string]string{},
	}
	c.api = "http://" + c.listen
	first := freePorts(t, 9)
	c.control = fmt.Sprintf("http://127.0.0.1:%d", first+8)
	c.args = map[string]string{"simulator": "127.0.0.1", "0.0.0.0": "127.0.0.1", "9440": fmt.Sprint(first)}
	pairs := []string{
		"kafka:9092", realKafka(), "redis:6379", realRedis(),
		"127.0.0.1:8080", c.listen, "/var/lib/belfry", filepath.Join(c.dir, "sim"),
	}
	for i := range 9 {
		for _, host := range []string{"simulator", "127.0.0.1"} {
			pairs = append(pairs, fmt.Sprintf("%s:%d", host, 9440+i), fmt.Sprintf("127.0.0.1:%d", first+i))
		}
	}
	c.place = strings.NewReplacer(pairs...)
	c.config = c.write("belfry.yaml", c.place.Replace(readFile(t, "../deploy/compose/belfry.yaml")))
	c.env = environ("BELFRY_SERVER=" + c.api)
	c.shareRealOnes()
	return c
}

func (c *composed) launch(name string) *process {
	c.t.Helper()
	s := c.services[name]
	// The image's own; a service's environment comes after and may change it.
	health := freeAddress(c.t)
	env := append(slices.Clone(c.env), "BELFRY_LISTEN="+c.listen, "BELFRY_HEALTH="+health)
	for key, value := range s.Environment {
		if key == "BELFRY_CONFIG" {
			value = c.config
		}
		env = append(env, key+"="+value)
	}
	args := slices.Clone(s.Command)
	for i, arg := range args {
		args[i] = c.place.Replace(arg)
		if whole, ok := c.args[arg]; ok {
			args[i] = whole
		}
	}
	if check := s.Healthcheck.Test; len(check) > 0 {
		c.checks[name] = strings.Replace(c.place.Replace(check[len(check)-1]), "127.0.0.1:8081", health, 1)
	}
	return launch(c.t, name, env, args...)
}

// healthy waits until what is launched is, as its container would be.
func (c *composed) healthy(p *process) {
	c.t.Helper()
	if c.checks[p.name] == "" {
		c.t.Fatalf("nobody asks how %s is", p.name)
	}
	p.answers(c.checks[p.name])
}

// priority checks that all threads of a process give way to others', or none of them.
func (p *process) priority(patient bool) {
	p.t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	until(p.t, p.name+" serves", func() bool { return strings.Contains(p.log.String(), "belfry serves") })
	want := 0
	if patient {
		want = 19
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		p.t.Fatalf("threads of %s: %v, %v", p.name, threads, err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			p.t.Fatal(err)
		}
		// The system call's own answer, 20 less the nice value.
		if got, err := syscall.Getpriority(syscall.PRIO_PROCESS, id); err == nil && 20-got != want {
			p.t.Errorf("a thread of %s has nice %d, want %d", p.name, 20-got, want)
		}
	}
}

func TestCompose(t *testing.T) {
	needReal(t, "the services of docker-compose.yml share them")
	t.Parallel()
	c := compose(t)
	c.healthy(c.launch("simulator"))
	topics := c.launch("topics")
	topics.wait()
	if topics.err != nil {
		t.Fatalf("topics: %v", topics.err)
	}
	var roles []*process
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		if command := c.services[name].Command; len(command) > 0 && command[0] == "serve" {
			roles = append(roles, c.launch(name))
		}
	}
	if len(roles) != len(config.Roles) {
		t.Fatalf("%d services serve, want one for each of %v", len(roles), config.Roles)
	}
	for _, p := range roles {
		c.healthy(p)
		p.priority(slices.Contains([]string{"fanout", "ledger", "replay"}, p.name) || strings.HasSuffix(p.name, "-bulk"))
	}
	c.env = append(c.env, "BELFRY_KEY="+c.key("demo"))
	c.register("demo")
	c.campaign("demo", everyone("c1"))
	c.balanced(c.ended("demo", "c1"))
	if sum := c.receipts(); sum.Repeats != 0 {
		t.Errorf("%d repeats", sum.Repeats)
	}
	for _, p := range roles {
		p.stop()
	}
}
