package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// embeddedWorld is one whose Kafka is in its own process.
func embeddedWorld(t *testing.T, o options) *world {
	t.Helper()
	if realKafka() != "" {
		t.Skip("the embedded Kafka's folder is not used on a real one")
	}
	return newWorld(t, o)
}

func (w *world) kafkaFile(path string) string { return filepath.Join(w.dir, "data", "kafka", path) }

// segmentOf is a file with records of a topic.
func (w *world) segmentOf(topic string) string {
	w.t.Helper()
	files, err := filepath.Glob(w.kafkaFile("partitions/" + topic + "-*/*.dat"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Size() > 0 {
			return f
		}
	}
	w.t.Fatalf("no records of %s", topic)
	return ""
}

// What is damaged while Belfry is stopped is named, and nothing is cut or sent: a backup brings all back.
func TestDamagedDataIsRefused(t *testing.T) {
	t.Parallel()
	w := embeddedWorld(t, options{devices: 60})
	w.start()
	w.register("demo")
	w.serve.stop()
	backup := filepath.Join(w.dir, "backup.tar")
	w.belfry("data", "backup", backup)

	file := w.segmentOf("belfry.devices")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(strings.TrimPrefix(file, w.kafkaFile("")+"/"), "byte", "belfry data restore", "belfry data repair")
	if now, err := os.ReadFile(file); err != nil || string(now) != string(b) {
		t.Errorf("the file was changed: %v", err)
	}
	w.fails("DAMAGED: partitions/belfry.devices-", "data", "check")
	w.fails("the records of belfry.devices-", "data", "repair")

	if err := os.Rename(w.kafkaFile(""), filepath.Join(w.dir, "damaged")); err != nil {
		t.Fatal(err)
	}
	w.belfry("data", "restore", backup)
	if err := os.Remove(w.kafkaFile("groups.log")); err != nil {
		t.Fatal(err)
	}
	w.refused("groups.log", "is missing")
	w.fails("--positions noted, start or end", "data", "repair", "--yes")
	w.belfry("data", "repair", "--yes", "--positions", "noted")
	w.start()
	w.registered("demo")
	w.campaign("demo", everyone("again"))
	w.balanced(w.ended("demo", "again"))
	w.notRepeated(0)
}

// fails runs a command that must not succeed, and must say so.
func (w *world) fails(word string, args ...string) {
	w.t.Helper()
	if f := command(w.t, w.env, args...); f.code != 1 || !strings.Contains(f.out+f.log, word) {
		w.t.Errorf("belfry %v: exit status %d, and does not say %q:\n%s%s", args, f.code, word, f.out, f.log)
	}
}

// A process that may have fewer files open than the embedded Kafka needs does not begin, and says how many it needs.
func TestTooFewFilesAreRefused(t *testing.T) {
	t.Parallel()
	w := embeddedWorld(t, options{devices: 60})
	for _, files := range []int{64, 700} {
		p := launchAs(t, "serve", w.env, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" serve`, files), binary))
		p.wait()
		if log := p.log.String(); p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(log, fmt.Sprintf("only %d files", files)) || !strings.Contains(log, "raise its limit to 1464") {
			t.Errorf("with %d it ended with %d: %s", files, p.cmd.ProcessState.ExitCode(), log)
		}
	}
	w.start()
}

// Idle connections without a key, as many as there may be files, cost neither the broker nor those who have a key.
func TestIdleConnectionsCostNothing(t *testing.T) {
	t.Parallel()
	w := embeddedWorld(t, options{devices: 60})
	const files = 1500
	w.serve = launchAs(t, "serve", w.env, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" serve`, files), binary))
	w.ready(w.serve)
	w.register("demo")
	host := strings.TrimPrefix(w.api, "http://")
	for i := range files {
		c, err := net.DialTimeout("tcp", host, 5*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
	}
	client := &http.Client{Timeout: 10 * time.Second}
	until(t, "an answer beside idle connections", func() bool {
		resp, err := client.Get(w.api + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	w.campaign("demo", everyone("beside"))
	w.balanced(w.ended("demo", "beside"))
	w.serve.says("as many connections are open as there may be")
	w.serve.stop()
}
