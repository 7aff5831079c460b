package producer_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const fcmDevice = `{"fcm":{"token":"t"}}`

func TestKeysAndScopes(t *testing.T) {
	a := start(t)
	for _, c := range []struct {
		what, auth, method, path string
		status                   int
		kind                     string
	}{
		{"no key", "", "GET", "/v1/campaigns", 401, "unauthorized"},
		{"not a bearer", "Basic " + allKey, "GET", "/v1/campaigns", 401, "unauthorized"},
		{"unknown key", "Bearer nobody's", "GET", "/v1/campaigns", 401, "unauthorized"},
		{"a reader writes", "Bearer " + readKey, "DELETE", "/v1/devices/d-1", 403, "forbidden"},
		{"a reader sends", "Bearer " + readKey, "POST", "/v1/messages", 403, "forbidden"},
		{"a reader bulks", "Bearer " + readKey, "POST", "/v1/events", 403, "forbidden"},
	} {
		got := a.call(c.method, c.path, "", "Authorization: "+c.auth)
		if p := got.problem(t); p.Status != c.status || p.Type != "urn:belfry:problem:"+c.kind {
			t.Errorf("%s: got %d %s", c.what, p.Status, p.Type)
		}
		if c.status == 401 && got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: WWW-Authenticate is missing", c.what)
		}
	}
}

func TestRequestsThatCannotBeTaken(t *testing.T) {
	a := start(t)
	for _, c := range []struct {
		what, method, path, body, header string
		status                           int
		kind                             string
	}{
		{"malformed JSON", "PUT", "/v1/devices/d", `{"fcm":`, "", 400, "malformed"},
		{"no body", "POST", "/v1/messages", ``, "", 400, "malformed"},
		{"a form", "PUT", "/v1/devices/d", fcmDevice, "Content-Type: application/x-www-form-urlencoded", 415, "media-type"},
		{"a large device", "PUT", "/v1/devices/d", `{"user":"` + strings.Repeat("x", 64<<10) + `"}`, "", 413, "too-large"},
		{"a large message", "POST", "/v1/messages", `{"to":"` + strings.Repeat("x", 64<<10) + `"}`, "", 413, "too-large"},
		{"a large message with a key", "POST", "/v1/messages", `{"to":"` + strings.Repeat("x", 64<<10) + `"}`, "Idempotency-Key: k", 413, "too-large"},
		{"a large campaign", "POST", "/v1/campaigns", `{"name":"` + strings.Repeat("x", 512<<10) + `"}`, "", 413, "too-large"},
		{"no such path", "GET", "/v1/pagers", "", "", 404, "not-found"},
		{"no such method", "PATCH", "/v1/campaigns", "", "", 405, "method-not-allowed"},
		{"unknown query", "GET", "/v1/campaigns?stat=draft", "", "", 422, "invalid"},
		{"an endless idempotency key", "POST", "/v1/messages", "{}", "Idempotency-Key: " + strings.Repeat("k", 129), 422, "invalid"},
	} {
		headers := slices.DeleteFunc([]string{c.header}, func(h string) bool { return h == "" })
		if p := a.call(c.method, c.path, c.body, headers...).problem(t); p.Status != c.status || p.Type != "urn:belfry:problem:"+c.kind {
			t.Errorf("%s: got %d %s %s", c.what, p.Status, p.Type, p.Detail)
		}
	}
}

// TestLogHoldsNoSecrets runs at debug, and Kafka's client with it.
func TestLogHoldsNoSecrets(t *testing.T) {
	var log safeBuffer
	k := streamtest.Kafka(t)
	k.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := newAPI(t, k, registrytest.Redis(t), k.Log)
	registrytest.Registry(t, a.redis, device("d-1", "ada"))
	streamtest.Run(t, a.Run)
	a.call("PUT", "/v1/devices/d-1", `{"apns":{"token":"`+token+`"}}`)
	a.call("PUT", "/v1/devices/d-1", webpush("https://push.example.com/s3cret", p256dh, "bad"))
	a.call("POST", "/v1/messages?dry_run=maybe", `{"to":{"user":"ada"},"message":{"title":"s3cret"}}`)
	a.call("POST", "/v1/messages", `{"to":{"user":"ada"},"message":{"title":"s3cret"}}`, "Idempotency-Key: k3y")
	a.call("POST", "/v1/devices/bulk", `{"fcm":{"token":"s3cret"}}`+"\n"+`{"fcm":{"token":"s3cret s3cret"}}`)
	text := log.String()
	if !strings.Contains(text, "api call") {
		t.Fatal("nothing was logged")
	}
	for _, secret := range []string{allKey, token, "s3cret", "k3y", "token-of-d-1"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// safeBuffer is a buffer that many write to.
type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// TestAnsweredOnlyOnceAcknowledged holds Kafka's answer back: the call must not have one before.
func TestAnsweredOnlyOnceAcknowledged(t *testing.T) {
	k, broker := streamtest.Embedded(t)
	a := serve(t, k, registrytest.Redis(t))
	asked, release := make(chan struct{}), make(chan struct{})
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		broker.SleepControl(func() { <-release })
		return nil, nil, false
	})
	answered := make(chan answer, 1)
	go func() { answered <- a.call("PUT", "/v1/devices/d-1", fcmDevice) }()
	<-asked
	select {
	case got := <-answered:
		t.Fatalf("answered %d before Kafka had it", got.status)
	default:
	}
	close(release)
	if got := <-answered; got.status != http.StatusAccepted {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// faultyProduce answers every produce with an error while it is on, and counts them.
type faultyProduce struct {
	on    atomic.Bool
	fired atomic.Int64
}

func (f *faultyProduce) install(broker *kfake.Cluster) {
	f.on.Store(true)
	broker.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !f.on.Load() {
			return nil, nil, false
		}
		f.fired.Add(1)
		req := r.(*kmsg.ProduceRequest)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.MessageTooLarge.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
}

func TestRefusedByKafkaIsNotAccepted(t *testing.T) {
	k, broker := streamtest.Embedded(t)
	a := serve(t, k, registrytest.Redis(t), device("d-1", "ada"))
	var fault faultyProduce
	fault.install(broker)
	const message = `{"to":{"user":"ada"},"message":{"title":"hi"}}`
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/v1/devices/d-1", fcmDevice},
		{"DELETE", "/v1/devices/d-1", ""},
		{"POST", "/v1/messages", message},
		{"POST", "/v1/campaigns", campaignBody},
	} {
		got := a.call(c.method, c.path, c.body, "Idempotency-Key: k"+c.path)
		if p := got.problem(t); p.Status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: got %d %s", c.method, c.path, p.Status, p.Detail)
		}
	}
	lines := a.call("POST", "/v1/devices/bulk", `{"id":"d-1","fcm":{"token":"t"}}`)
	if !strings.Contains(lines.body, `"status":"failed"`) {
		t.Errorf("bulk: got %s", lines.body)
	}
	if n := fault.fired.Load(); n < 5 {
		t.Fatalf("Kafka refused %d times, want each call to have met it", n)
	}
	// It recovers by itself, and the key of a call that failed is not spent.
	fault.on.Store(false)
	if got := a.call("POST", "/v1/messages", message, "Idempotency-Key: k/v1/messages"); got.status != http.StatusAccepted {
		t.Errorf("after the outage: got %d %s", got.status, got.body)
	}
}

func TestUnreachableKafkaIsSaid(t *testing.T) {
	t.Parallel()
	e, err := stream.StartEmbedded("")
	if err != nil {
		t.Fatal(err)
	}
	k := &stream.Kafka{Brokers: e.Addrs(), Prefix: "t.", Instance: "test", Log: streamtest.Log(t)}
	e.Close()
	a := serve(t, k, registrytest.Redis(t))
	got := a.call("PUT", "/v1/devices/d-1", fcmDevice)
	if p := got.problem(t); p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "Kafka") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", p.Status, p.Detail)
	}
	if got := a.call("GET", "/readyz", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("readyz: got %d", got.status)
	}
	if got := a.call("GET", "/healthz", ""); got.status != http.StatusOK {
		t.Errorf("healthz: got %d", got.status)
	}
}

// What is known to be refused is refused at once: nothing of such a call waits for room and is written later.
func TestAFullDiskRefusesCallsForGood(t *testing.T) {
	k, disk := streamtest.OnSmallDisk(t, 64<<20)
	filler := filepath.Join(disk, "filler")
	a := startOn(t, k, registrytest.Redis(t), device("d-1", "ada"))
	refuses := func(want bool) {
		t.Helper()
		for start := time.Now(); (k.Refuses() != nil) != want; time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatalf("Kafka refuses: %v, want %v", k.Refuses(), want)
			}
		}
	}
	if err := os.WriteFile(filler, make([]byte, 58<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(true)
	got := a.call("POST", "/v1/messages", `{"to":{"user":"ada"},"message":{"title":"refused"}}`)
	if p := got.problem(t); p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "nothing of this call was written") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", p.Status, p.Detail)
	}
	if p := a.call("POST", "/v1/devices/bulk", `{"id":"d-2","fcm":{"token":"t"}}`, "Content-Type: application/x-ndjson").problem(t); p.Status != http.StatusServiceUnavailable {
		t.Errorf("in bulk: got %d %s", p.Status, p.Detail)
	}
	if got := a.call("GET", "/v1/lanes", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("lanes whose statuses cannot be written are told of: %d %s", got.status, got.body)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	refuses(false)
	if got := a.call("POST", "/v1/messages", `{"to":{"user":"ada"},"message":{"title":"taken"}}`); got.status != http.StatusAccepted {
		t.Errorf("with room again: got %d %s", got.status, got.body)
	}
	var d pb.Delivery
	if err := proto.Unmarshal(a.records(1, urgentFCM)[0].Value, &d); err != nil {
		t.Fatal(err)
	}
	if d.Message.Content.Title != "taken" || ends(t, streamtest.Client(t, k), k.Topic(urgentFCM)) != 1 {
		t.Errorf("a refused call was written: %v", d.Message.Content)
	}
}

func TestLostRedisRefusesOnlyWhatReadsIt(t *testing.T) {
	server := miniredis.RunT(t)
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a := serve(t, streamtest.Kafka(t), r, device("d-1", "ada"))
	l := a.launch("")
	server.Close()
	const message = `{"to":{"user":"ada"},"message":{"title":"hi"}}`
	got := a.call("POST", "/v1/messages", message)
	if p := got.problem(t); p.Status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("a message: got %d %s", p.Status, p.Detail)
	}
	if got := a.call("PUT", "/v1/devices/d-1", fcmDevice); got.status != http.StatusAccepted {
		t.Errorf("a device: got %d %s", got.status, got.body)
	}
	// Ids derive from the key, so what cannot be replayed is at least the same campaign and the same commands.
	first := a.call("POST", "/v1/campaigns", campaignBody, "Idempotency-Key: k")
	again := a.call("POST", "/v1/campaigns", campaignBody, "Idempotency-Key: k")
	if first.status != http.StatusCreated || again.status != http.StatusCreated || first.body != again.body || len(l.commands) != 1 {
		t.Errorf("a campaign twice: got %d %s\nand %d %s\nof %d commands", first.status, first.body, again.status, again.body, len(l.commands))
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	registrytest.Registry(t, r, device("d-1", "ada"))
	if got := a.call("POST", "/v1/messages", message); got.status != http.StatusAccepted {
		t.Errorf("a message afterwards: got %d %s", got.status, got.body)
	}
}

func TestDescriptionIsWhole(t *testing.T) {
	a := start(t)
	got := a.call("GET", "/openapi.json", "", "Authorization: ")
	var api struct {
		OpenAPI    string
		Info       struct{ Version string }
		Components struct {
			Schemas         map[string]any
			SecuritySchemes map[string]any
		}
		Paths map[string]map[string]struct {
			Summary, OperationID string
			Security             []map[string][]string
			Responses            map[string]any
		}
	}
	if err := json.Unmarshal([]byte(got.body), &api); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(api.OpenAPI, "3.1") || api.Info.Version != "test" || api.Components.SecuritySchemes["key"] == nil {
		t.Errorf("got OpenAPI %s, version %s, security %v", api.OpenAPI, api.Info.Version, api.Components.SecuritySchemes)
	}
	page := a.call("GET", "/docs", "").body
	ids := map[string]bool{}
	for path, methods := range api.Paths {
		for method, op := range methods {
			if op.Summary == "" || op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s: no summary, or no id of its own", method, path)
			}
			ids[op.OperationID] = true
			if strings.HasPrefix(path, "/v1/") && (len(op.Security) == 0 || op.Responses["401"] == nil || op.Responses["403"] == nil) {
				t.Errorf("%s %s: its key is not described", method, path)
			}
			if !strings.Contains(page, path) {
				t.Errorf("%s: not on the documentation's page", path)
			}
		}
	}
	// Every reference must lead somewhere.
	for _, part := range strings.Split(got.body, `"$ref":"#/components/schemas/`)[1:] {
		if name, _, _ := strings.Cut(part, `"`); api.Components.Schemas[name] == nil {
			t.Errorf("schema %s is not defined", name)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "src=") {
		t.Error("the documentation's page loads something")
	}
}
