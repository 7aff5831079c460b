package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// row is the columns of what belfry lanes prints in the line that begins so.
func row(out, begin string) []string {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, begin) {
			return slices.DeleteFunc(strings.Split(strings.TrimSpace(line), "  "), func(s string) bool { return strings.TrimSpace(s) == "" })
		}
	}
	return nil
}

func trimmed(columns []string) string {
	for i := range columns {
		columns[i] = strings.TrimSpace(columns[i])
	}
	return strings.Join(columns, "|")
}

// TestLanesTellWhatIsNotRun, what waits for whom, who was told otherwise, and that nothing is known while Kafka is away: then
// belfry lanes fails and shows nothing. Each of it is of real processes.
func TestLanesTellWhatIsNotRun(t *testing.T) {
	t.Parallel()
	k, cluster := streamtest.Embedded(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	w := elsewhere(t, k)
	config := w.read("belfry.yaml")
	const operator = "an-operators-key-for-lanes"
	operators := fmt.Sprintf("operators: [{name: ops, hash: %q}]\n", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(operator))))
	health := freeAddress(t)
	env := append(slices.Clone(w.env), "BELFRY_CONFIG="+w.write("with-operator.yaml", operators+config), "BELFRY_HEALTH="+health,
		"BELFRY_ROLES=producer,registry,trigger,fanout,ledger,replay,senders.apns,senders.fcm")
	w.serve = launch(t, "serve", env, "serve")
	w.ready(w.serve)
	w.serve.says("belfry serves", "version=", "configuration=", "apps=demo")

	// A sender whose file has no app, and another prefix.
	other := freeAddress(t)
	wrong := launch(t, "wrong", append(slices.Clone(w.env), "BELFRY_CONFIG="+w.write("wrong.yaml", "log: {level: info}\n"),
		"BELFRY_REDIS_PREFIX=x:", "BELFRY_HEALTH="+other, "BELFRY_INSTANCE=wrong", "BELFRY_ROLES=senders.apns.urgent"), "serve")
	wrong.answers("http://" + other + "/readyz")
	w.serve.says("level=WARN", "told otherwise", "other_instance=wrong", "redis.prefix", "only here app demo")
	wrong.says("level=WARN", "told otherwise", "other_instance=e2e", "only there app demo")
	if w.serve.said("the registry was last kept under another redis.prefix") {
		t.Error("a process that uses no registry says that it keeps one")
	}

	for i := range 3 {
		streamtest.Produce(t, k, &kgo.Record{
			Topic: schemas.TopicSend(pb.Platform_PLATFORM_WEBPUSH, pb.Class_CLASS_BULK), Key: schemas.Key("demo", fmt.Sprint(i)), Value: []byte("x"),
		})
	}
	if a := w.call("demo", http.MethodPost, "/v1/events", `{"id":"e-1","name":"order.shipped","user":"u-1"}`, "Content-Type", "application/x-ndjson"); a.status != http.StatusOK {
		t.Fatalf("event: %d %s", a.status, a.body)
	}
	lanes := func(key string) finished { return command(t, append(slices.Clone(w.env), "BELFRY_KEY="+key), "lanes") }
	var f finished
	until(t, "lanes tells of all that waits", func() bool {
		f = lanes(operator)
		return f.code == 0 && trimmed(row(f.out, "webpush/bulk")) == "webpush/bulk|no process|3|unknown|0|unknown|0|0 of 0 open" &&
			strings.HasPrefix(trimmed(row(f.out, "apns/urgent")), "apns/urgent|2|0|0|0|0s|0|") &&
			trimmed(row(f.out, "fcm  ")) == "fcm|1|no process of the role trigger knows the rules of their app" &&
			strings.HasPrefix(trimmed(row(f.out, "wrong")), "wrong|senders.apns.urgent|devel|redis.prefix is")
	})
	if head := trimmed(row(f.out, "LANE")); head != "LANE|INSTANCES|BACKLOG|RETRYING|DONE/S|OLDEST|IN FLIGHT|DESTINATIONS" {
		t.Errorf("the columns are %q", head)
	}
	if f = lanes(w.key("demo")); f.code != 0 || strings.Contains(f.out, "TOLD OTHERWISE") {
		t.Errorf("an app's key: exit status %d\n%s%s", f.code, f.out, f.log)
	}
	until(t, "the API and the health address warn", func() bool {
		for _, url := range []string{w.api, "http://" + health} {
			body := get(url + "/readyz")
			if !strings.Contains(body, "told otherwise") || !strings.Contains(body, "no process runs senders.webpush.bulk") || !strings.Contains(body, "rules") {
				return false
			}
		}
		return true
	})

	cluster.Close()
	until(t, "lanes fails while Kafka is away", func() bool { f = lanes(operator); return f.code != 0 })
	if f.code != 1 || f.out != "" || !strings.Contains(f.log, "not known") {
		t.Errorf("while Kafka is away: exit status %d\n%s%s", f.code, f.out, f.log)
	}
	for _, address := range []string{health, other} {
		until(t, "not ready", func() bool { return strings.Contains(get("http://"+address+"/readyz"), "o answer from Kafka") })
	}
	wrong.kill() // with Kafka away for good
	w.serve.kill()
}

// get is the body of what a URL answers, or "".
func get(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // as much as came
	return string(body)
}
