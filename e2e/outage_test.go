package e2e

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script runs one of the repository's scripts and returns what it prints.
func script(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join("..", "scripts", name), args...)
	var log output
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, log.String())
	}
	return strings.TrimSpace(string(out))
}

// needTools skips a test that starts a real one itself.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not here", name)
		}
	}
}

// unavailable asserts that a call is answered with 503 and when to try again, as soon as the outage is noticed.
func (w *world) unavailable(method, path, body string, header ...string) {
	w.t.Helper()
	until(w.t, method+" "+path+" is refused", func() bool {
		a := w.call("demo", method, path, body, header...)
		if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
			w.t.Errorf("%s %s: 503 without Retry-After: %s", method, path, a.body)
		}
		return a.status == http.StatusServiceUnavailable
	})
}

// Redis dies in the middle of a campaign and comes back with nothing in it. Nothing is lost with it: it is filled again
// from Kafka, by itself.
func TestRedisLost(t *testing.T) {
	needTools(t, "redis-server", "redis-cli")
	t.Parallel()
	const devices = 4000
	dir := t.TempDir()
	address := script(t, "redis/redis-start", "--dir", dir)
	t.Cleanup(func() { script(t, "redis/redis-stop", "--dir", dir) })
	w := newWorld(t, options{devices: devices})
	w.env = append(w.env, "BELFRY_REDIS_ADDRESSES="+address)
	w.start()
	w.register("demo")
	w.slow(300 * time.Millisecond)
	w.campaign("demo", everyone("c1"))
	until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= devices/10 })

	script(t, "redis/redis-stop", "--dir", dir)
	w.serve.says("level=WARN", "cannot use Redis")
	w.unavailable(http.MethodGet, "/v1/devices/d-000000", "")
	w.unavailable(http.MethodGet, "/readyz", "")
	before := w.receipts().Distinct
	if before < devices {
		until(t, "what is expanded already goes on being sent", func() bool { return w.receipts().Distinct > before })
	}
	if again := script(t, "redis/redis-start", "--dir", dir); again != address {
		t.Fatalf("Redis is at %s, and was at %s", again, address)
	}
	w.serve.says("the registry is rebuilt from Kafka")
	w.registered("demo")
	w.lift("slow")
	first := w.ended("demo", "c1")
	w.campaign("demo", everyone("c2"))
	second := w.ended("demo", "c2")
	w.balanced(first, second)
	w.notRepeated(0, first, second)
	w.serve.stop()
}

// Kafka stands still for five seconds in the middle of a campaign. Whoever calls meanwhile is told to come again, and the
// campaign goes on by itself.
func TestKafkaStandsStill(t *testing.T) {
	needReal(t, "it starts a Kafka of its own beside them")
	needTools(t, "java", "mvn")
	t.Parallel()
	const devices = 4000
	dir := t.TempDir()
	address := script(t, "kafka/kafka-start", "--dir", dir, "--port", "auto", "--heap", "400m")
	t.Cleanup(func() { script(t, "kafka/kafka-stop", "--dir", dir, "--grace", "5") })
	w := newWorld(t, options{devices: devices})
	w.env = append(w.env, "BELFRY_KAFKA_BROKERS="+address)
	w.start()
	w.register("demo")
	w.slow(300 * time.Millisecond)
	w.campaign("demo", everyone("c1"))
	until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= devices/10 })

	script(t, "kafka/kafka-node", "--dir", dir, "pause", "1")
	stood := time.Now()
	// It is refused after 12 s, and answered if Kafka goes on before. It must: sessions end after 12 s, too.
	first := make(chan int, 1)
	go func() {
		a, _ := w.try("demo", http.MethodPost, "/v1/campaigns", everyone("c2"), "Idempotency-Key", "c2")
		first <- a.status
	}()
	w.unavailable(http.MethodGet, "/readyz", "")
	if p, ok := w.progress("demo", "c1"); !ok || p.State != "running" {
		t.Errorf("the campaign was over before Kafka stood still: %+v", p)
	}
	until(t, "Kafka has stood still for five seconds", func() bool { return time.Since(stood) > 5*time.Second })
	script(t, "kafka/kafka-node", "--dir", dir, "resume", "1")
	switch status := <-first; status {
	case http.StatusCreated, http.StatusAccepted, http.StatusServiceUnavailable:
	default:
		t.Errorf("a campaign is answered with status %d while Kafka stands still", status)
	}
	// The record of a refused call may have arrived or not: its key makes both one.
	until(t, "the campaign is taken", func() bool {
		a := w.call("demo", http.MethodPost, "/v1/campaigns", everyone("c2"), "Idempotency-Key", "c2")
		return a.status == http.StatusCreated || a.status == http.StatusAccepted
	})
	w.lift("slow")
	one, two := w.ended("demo", "c1"), w.ended("demo", "c2")
	w.balanced(one, two)
	w.notRepeated(0, one, two)
	w.serve.stop()
}
