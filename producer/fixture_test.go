package producer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// now is every server's time.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	allKey      = "shop-key-with-every-scope"
	readKey     = "shop-key-to-read"
	newsKey     = "news-key-with-every-scope"
	operatorKey = "operators-key"
)

func key(name, key string, scopes ...string) producer.Key {
	return producer.Key{Name: name, Hash: sha256.Sum256([]byte(key)), Scopes: scopes}
}

// api is a running server and what is around it.
type api struct {
	t     testing.TB
	url   string
	kafka *stream.Kafka
	redis *registry.Redis
	*producer.Server
}

// start runs a server on a Kafka and a Redis of its own, whose registry holds devices. It has read its views.
func start(t testing.TB, devices ...*pb.Device) *api {
	return startOn(t, streamtest.Kafka(t), registrytest.Redis(t), devices...)
}

func startOn(t testing.TB, k *stream.Kafka, r *registry.Redis, devices ...*pb.Device) *api {
	a := serve(t, k, r, devices...)
	for a.call("GET", "/readyz", "").status != http.StatusOK { // until its views have been read
		time.Sleep(time.Millisecond)
	}
	return a
}

func serve(t testing.TB, k *stream.Kafka, r *registry.Redis, devices ...*pb.Device) *api {
	t.Helper()
	registrytest.Registry(t, r, devices...)
	a := newAPI(t, k, r, streamtest.Log(t))
	streamtest.Run(t, a.Run)
	return a
}

// serveUntil runs a server until ctx ends. The channel gets what Run returned.
func serveUntil(ctx context.Context, t testing.TB, k *stream.Kafka, r *registry.Redis) (*api, <-chan error) {
	t.Helper()
	a := newAPI(t, k, r, streamtest.Log(t))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return a, done
}

func newAPI(t testing.TB, k *stream.Kafka, r *registry.Redis, log *slog.Logger) *api {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newAPIOn(t, k, r, log, listener)
}

func newAPIOn(t testing.TB, k *stream.Kafka, r *registry.Redis, log *slog.Logger, listener net.Listener) *api {
	t.Helper()
	s, err := producer.New(producer.Options{
		Listener: listener, Kafka: k, Redis: r, Version: "test", Log: log,
		Keys: map[string][]producer.Key{
			"shop": {
				key("all", allKey, producer.ScopeSend, producer.ScopeManage, producer.ScopeRead),
				key("read", readKey, producer.ScopeRead),
			},
			"news": {key("all", newsKey, producer.ScopeSend, producer.ScopeManage, producer.ScopeRead)},
		},
		Operators:  []producer.Key{key("ops", operatorKey)},
		AllowHosts: map[string][]string{"shop": {"127.0.0.1:8443"}},
		Now:        func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &api{t, "http://" + listener.Addr().String(), k, r, s}
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   string
}

// call makes one with a key of every scope, unless headers say otherwise ("Name: value").
func (a *api) call(method, path, body string, headers ...string) answer {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+allKey)
	r.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// problem is the answer as one.
func (a answer) problem(t testing.TB) producer.Problem {
	t.Helper()
	var p producer.Problem
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("got %d %s %s, want a problem", a.status, got, a.body)
	}
	a.read(t, &p)
	if p.Status != a.status || p.Title == "" || p.Detail == "" {
		t.Errorf("the problem is not whole: %d %s", a.status, a.body)
	}
	return p
}

func (a answer) read(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("answer %d %s: %v", a.status, a.body, err)
	}
}

// records returns the first n records of a topic, without its prefix.
func (a *api) records(n int, topics ...string) []*kgo.Record {
	a.t.Helper()
	var got []*kgo.Record
	streamtest.Read(a.t, a.kafka, func(r *kgo.Record) bool {
		got = append(got, r)
		return len(got) < n
	}, topics...)
	return got
}

// none checks that topics are empty.
func (a *api) none(topics ...string) {
	a.t.Helper()
	client := streamtest.Client(a.t, a.kafka)
	for _, topic := range topics {
		if n := ends(a.t, client, a.kafka.Topic(topic)); n > 0 {
			a.t.Errorf("%s holds %d records, want none", topic, n)
		}
	}
}

func device(id, user string, change ...func(*pb.Device)) *pb.Device {
	d := &pb.Device{
		App: "shop", Id: id, User: user, Platform: pb.Platform_PLATFORM_FCM, Locale: "fr-CA", RegisteredAt: now.UnixMilli(),
		Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "token-of-" + id}}},
	}
	for _, c := range change {
		c(d)
	}
	return d
}

func onAPNs(d *pb.Device) {
	d.Platform = pb.Platform_PLATFORM_APNS
	d.Target = &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{
		Token: bytes.Repeat([]byte{7}, 32), Environment: pb.Environment_ENVIRONMENT_PRODUCTION,
	}}}
}

// ends is how many records a topic's partitions end at.
func ends(t testing.TB, client *kgo.Client, topic string) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(client).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// launcher decides commands in the place of package fanout. It carries everything out, or
// refuses it as it was told to.
type launcher struct {
	t      testing.TB
	refuse string

	mu        sync.Mutex
	campaigns map[string]*pb.Campaign
	commands  []string // ids, as they came
}

// launch runs a launcher that refuses commands with the text, if it is not empty.
func (a *api) launch(refuse string) *launcher {
	l := &launcher{t: a.t, refuse: refuse, campaigns: map[string]*pb.Campaign{}}
	streamtest.Run(a.t, stream.NewConsumer(a.kafka, stream.Options{
		Name: "launcher", Topics: []string{schemas.TopicCommands},
		Handle: func(_ context.Context, tasks []*stream.Task) {
			for _, task := range tasks {
				task.Done(l.decide(task.Value)...)
			}
		},
	}).Run)
	return l
}

func (l *launcher) decide(value []byte) []stream.Output {
	command := &pb.Command{}
	if err := proto.Unmarshal(value, command); err != nil {
		l.t.Errorf("a command cannot be read: %v", err)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, command.Id)
	c := l.campaigns[command.Campaign]
	decision := &pb.Decision{Command: command.Id}
	switch kind := command.Kind.(type) {
	case *pb.Command_Create:
		if c != nil {
			decision.Refused = "exists already"
			break
		}
		c = proto.CloneOf(kind.Create)
		c.App, c.Id, c.State = command.App, command.Campaign, pb.CampaignState_CAMPAIGN_STATE_DRAFT
		l.campaigns[c.Id] = c
	case *pb.Command_Launch:
		c.State, c.LaunchedAt = pb.CampaignState_CAMPAIGN_STATE_RUNNING, now.UnixMilli()
		c.Chunks, c.Warning = map[string]uint32{"fcm": 2}, kind.Launch.Warning
	case *pb.Command_Pause:
		c.State = pb.CampaignState_CAMPAIGN_STATE_PAUSED
	case *pb.Command_Resume:
		c.State = pb.CampaignState_CAMPAIGN_STATE_RUNNING
	case *pb.Command_SetPace:
		c.Pace = &pb.Pace{PerSecond: kind.SetPace.PerSecond}
	case *pb.Command_Cancel:
		c.State, c.Reason = pb.CampaignState_CAMPAIGN_STATE_CANCELLED, kind.Cancel.Reason
	}
	if l.refuse != "" && command.GetCreate() == nil {
		decision.Refused = l.refuse
	}
	c.Decisions = append(c.Decisions, decision)
	value, err := proto.Marshal(c)
	if err != nil {
		l.t.Error(err)
	}
	return []stream.Output{{Topic: schemas.TopicCampaigns, Key: schemas.Key(c.App, c.Id), Value: value}}
}
