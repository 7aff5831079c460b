package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/belfry/belfry/soak/proxy"
)

// kafka is a cluster whose nodes can be struck one by one. Clients reach each node through a proxy.
type kafka struct {
	kind    string // embedded, 1 or 3
	nodes   int
	dir     string
	scripts string
	broker  *process // the embedded one
	proxies []*proxy.Proxy
	// direct are the addresses past the proxies; the embedded one tells its clients the proxy's all the same.
	direct []string
}

func (w *world) startKafka(kind string) (*kafka, error) {
	k := &kafka{kind: kind, nodes: 1, dir: filepath.Join(w.dir, "kafka"), scripts: filepath.Join(w.repo, "scripts", "kafka")}
	if kind == "embedded" {
		return k, k.startEmbedded(w)
	}
	var err error
	if k.nodes, err = strconv.Atoi(kind); err != nil || k.nodes != 1 && k.nodes != 3 {
		return nil, fmt.Errorf("-kafka %s: is none of embedded, 1 and 3", kind)
	}
	return k, k.startReal()
}

func (k *kafka) startEmbedded(w *world) error {
	listen, front := "127.0.0.2:"+strconv.Itoa(freePorts(1)), "127.0.0.1:"+strconv.Itoa(freePorts(1))
	p, err := proxy.Listen(front, listen)
	if err != nil {
		return err
	}
	k.proxies, k.direct = []*proxy.Proxy{p}, []string{front}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	k.broker = &process{name: "broker", dir: w.dir, args: []string{self, "-broker", listen, "-advertise", front, "-dir", k.dir}}
	return k.start(1)
}

// startReal starts a cluster, and once more with a listener behind the proxies: its nodes' addresses are known only then.
func (k *kafka) startReal() error {
	out, err := command("", nil, filepath.Join(k.scripts, "kafka-start"), "--dir", k.dir, "--nodes", strconv.Itoa(k.nodes), "--port", "auto", "--heap", "512m", "--acls")
	if err != nil {
		return err
	}
	k.direct = strings.Split(out, ",")
	if err := k.stop(); err != nil {
		return err
	}
	for i := range k.nodes {
		listen := "127.0.0.1:" + strconv.Itoa(freePorts(1))
		p, err := proxy.Listen("127.0.0.1:0", listen)
		if err != nil {
			return err
		}
		k.proxies = append(k.proxies, p)
		name := filepath.Join(k.dir, "nodes", strconv.Itoa(i+1), "server.properties")
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(behind(string(b), listen, p.Addr())), 0o600); err != nil {
			return err
		}
	}
	_, err = command("", nil, filepath.Join(k.scripts, "kafka-start"), "--dir", k.dir)
	return err
}

// behind adds a listener to a broker's properties that it advertises at another address. The brokers' own traffic keeps
// off it.
func behind(properties, listen, advertise string) string {
	var b strings.Builder
	for line := range strings.Lines(properties) {
		line = strings.TrimRight(line, "\n")
		switch key, _, _ := strings.Cut(line, "="); key {
		case "listeners":
			line += ",PROXIED://" + listen
		case "advertised.listeners":
			line += ",PROXIED://" + advertise
		case "listener.security.protocol.map":
			line += ",PROXIED:PLAINTEXT"
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// addresses are what the roles are told.
func (k *kafka) addresses() []string {
	all := make([]string, len(k.proxies))
	for i, p := range k.proxies {
		all[i] = p.Addr()
	}
	return all
}

func (k *kafka) node(args ...string) error {
	_, err := command("", nil, filepath.Join(k.scripts, "kafka-node"), append([]string{"--dir", k.dir}, args...)...)
	return err
}

// start starts node i, 1 to nodes, and waits until it serves.
func (k *kafka) start(i int) error {
	if k.broker == nil {
		return k.node("start", strconv.Itoa(i))
	}
	if err := k.broker.start(); err != nil {
		return err
	}
	return waitFor("the embedded broker listens", func() bool { return k.broker.running() && listens(k.broker.args[2]) })
}

func (k *kafka) kill(i int) error {
	if k.broker == nil {
		return k.node("kill", strconv.Itoa(i))
	}
	k.broker.kill()
	return nil
}

func (k *kafka) pause(i int, on bool) error {
	if k.broker == nil {
		return k.node(map[bool]string{true: "pause", false: "resume"}[on], strconv.Itoa(i))
	}
	k.broker.signal(stopOrCont(on))
	return nil
}

// forged counts the answers that the embedded broker has forged.
func (k *kafka) forged() int {
	log, err := os.ReadFile(filepath.Join(k.broker.dir, k.broker.name+".log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(log), "\n"+forged)
}

func (k *kafka) stop() error {
	if k.broker != nil {
		return k.broker.stop()
	}
	_, err := command("", nil, filepath.Join(k.scripts, "kafka-stop"), "--dir", k.dir, "--grace", "15")
	return err
}
