package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/health"
	"github.com/belfry/belfry/listen"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// told is a process's health address.
type told struct {
	t      *testing.T
	url    string
	server *health.Server
}

// address serves one, of no process yet.
func address(t *testing.T) *told {
	t.Helper()
	l, err := listen.On("127.0.0.1:0", listen.Options{Name: "health", Limit: 8, Log: streamtest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := health.NewServer(l, streamtest.Log(t))
	streamtest.Run(t, s.Serve)
	return &told{t, "http://" + l.Addr().String(), s}
}

// process watches over one, and serves its address.
func process(t *testing.T, o health.Options) *told {
	t.Helper()
	a := address(t)
	o.Now = time.Now
	p, err := health.New(o)
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, p.Run)
	streamtest.Run(t, o.Kafka.Watch)
	a.server.Begin(p)
	return a
}

func (a *told) get(path string) (status int, r health.Report) {
	a.t.Helper()
	resp, err := http.Get(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, r
}

// says asks until readyz answers so, for two minutes at most.
func (a *told) says(status int, parts ...string) (r health.Report) {
	a.t.Helper()
	var got int
	for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(20 * time.Millisecond) {
		got, r = a.get("/readyz")
		is := got == status
		for _, p := range parts {
			is = is && strings.Contains(r.Reasons+strings.Join(r.Warnings, " "), p)
		}
		if is {
			if alive, _ := a.get("/healthz"); alive != http.StatusOK {
				a.t.Errorf("healthz says %d", alive)
			}
			return r
		}
	}
	a.t.Fatalf("readyz says %d %+v, want %d %q", got, r, status, parts)
	return r
}

// TestFromStartToStop: it answers before what the process needs is there, and until it ends.
func TestFromStartToStop(t *testing.T) {
	a := address(t)
	a.says(http.StatusServiceUnavailable, "starting")
	k := streamtest.Kafka(t)
	p, err := health.New(health.Options{Kafka: k, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, p.Run)
	a.server.Begin(p)
	a.says(http.StatusOK)
	a.server.Stop()
	a.says(http.StatusServiceUnavailable, "stopping")
}

func TestKafkaIsAway(t *testing.T) {
	k, cluster := streamtest.Embedded(t)
	a := process(t, health.Options{Kafka: k})
	a.says(http.StatusOK)
	cluster.Close()
	a.says(http.StatusServiceUnavailable, "No answer from Kafka")
}

// TestAKafkaThatHangsIsNotRedis: one of the two takes all the time that readiness gives them. The other is not blamed.
func TestAKafkaThatHangsIsNotRedis(t *testing.T) {
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() }) // it accepts, and says nothing
	k := &stream.Kafka{Brokers: []string{silent.Addr().String()}, Prefix: "t.", Instance: "a", Log: streamtest.Log(t)}
	p, err := health.New(health.Options{Kafka: k, Redis: registrytest.Server(t), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no answer from Kafka") || strings.Contains(err.Error(), "no answer from Redis") {
		t.Errorf("it says: %v", err)
	}
}

// TestATopicIsGone: a view of the process waits for it, and says so, whatever its roles.
func TestATopicIsGone(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	a := process(t, health.Options{Kafka: k})
	a.says(http.StatusOK)
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.DeleteTopic(t.Context(), k.Topic(schemas.TopicLanes)); err != nil {
		t.Fatal(err)
	}
	a.says(http.StatusServiceUnavailable, "lanes", "topics apply")
	if _, err := stream.ApplyTopics(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	a.says(http.StatusOK)
}

// TestCommitsFail: what a consumer of the process writes is refused.
func TestCommitsFail(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	a := process(t, health.Options{Kafka: k})
	a.says(http.StatusOK)
	consumer := stream.NewConsumer(k, stream.Options{
		Name: "copier", Topics: []string{schemas.TopicEvents}, Records: 10, Bytes: 1 << 20,
		Handle: func(_ context.Context, tasks []*stream.Task) {
			for _, task := range tasks {
				task.Done(stream.Output{Topic: schemas.TopicCommands, Key: task.Key, Value: task.Value})
			}
		},
	})
	streamtest.Run(t, consumer.Run)
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.DeleteTopic(t.Context(), k.Topic(schemas.TopicCommands)); err != nil {
		t.Fatal(err)
	}
	writer := streamtest.Client(t, k)
	streamtest.Run(t, func(ctx context.Context) error { // more than once: a broker has the topic for a moment longer
		for ctx.Err() == nil {
			r := &kgo.Record{Topic: k.Topic(schemas.TopicEvents), Key: []byte("k"), Value: []byte("v")}
			if err := writer.ProduceSync(ctx, r).FirstErr(); err != nil && ctx.Err() == nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	})
	a.says(http.StatusServiceUnavailable, "commits have not succeeded")
	if _, err := stream.ApplyTopics(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	a.says(http.StatusOK)
}

// TestAPartitionStands: its position lies beyond its log, as where an older copy of the disk was put back.
func TestAPartitionStands(t *testing.T) {
	k := streamtest.Kafka(t)
	a := process(t, health.Options{Kafka: k})
	a.says(http.StatusOK)
	adm := kadm.NewClient(streamtest.Client(t, k))
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: k.Topic(schemas.TopicEvents), Partition: 3, At: 1000, LeaderEpoch: -1})
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) { // a new cluster makes its groups' topic first
		err := adm.CommitAllOffsets(t.Context(), k.Prefix+"reader", offsets)
		if err == nil {
			break
		}
		if time.Since(begun) > 2*time.Minute {
			t.Fatal(err)
		}
	}
	consumer := stream.NewConsumer(k, stream.Options{
		Name: "reader", Topics: []string{schemas.TopicEvents}, Records: 10, Bytes: 1 << 20,
		Handle: func(_ context.Context, tasks []*stream.Task) {
			for _, task := range tasks {
				task.Done()
			}
		},
	})
	streamtest.Run(t, consumer.Run)
	a.says(http.StatusServiceUnavailable, "position 1000 of "+k.Topic(schemas.TopicEvents)+"/3 is not on its log")
}

// TestRedisIsNoPlaceForDevices: one that drops them, takes no writes, or is gone. A process that needs none is well.
func TestRedisIsNoPlaceForDevices(t *testing.T) {
	t.Parallel()
	k, r := streamtest.Kafka(t), registrytest.Server(t)
	if err := registry.Rebuild(t.Context(), k, registry.New(r), nil); err != nil {
		t.Fatal(err)
	}
	a := process(t, health.Options{Kafka: k, Redis: r})
	without := process(t, health.Options{Kafka: k})
	set := func(args ...any) {
		t.Helper()
		if err := r.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	a.says(http.StatusOK)
	set("CONFIG", "SET", "maxmemory", "100mb")
	set("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	a.says(http.StatusServiceUnavailable, "maxmemory-policy")
	set("CONFIG", "SET", "maxmemory-policy", "noeviction")
	a.says(http.StatusOK)
	set("REPLICAOF", "127.0.0.1", "1")
	a.says(http.StatusServiceUnavailable, "replica")
	set("REPLICAOF", "NO", "ONE")
	a.says(http.StatusOK)
	set("FLUSHALL")
	a.says(http.StatusServiceUnavailable, "not complete yet")
	_ = r.Do(t.Context(), "SHUTDOWN", "NOSAVE").Err() // it answers by going
	a.says(http.StatusServiceUnavailable, "No answer from Redis")
	without.says(http.StatusOK)
}

// TestTheRegistryIsKeptElsewhere: this process reads under another prefix.
func TestTheRegistryIsKeptElsewhere(t *testing.T) {
	k, kept, own := streamtest.Kafka(t), registrytest.Redis(t), registrytest.Redis(t)
	if err := registry.Rebuild(t.Context(), k, registry.New(kept), nil); err != nil {
		t.Fatal(err)
	}
	a := process(t, health.Options{Kafka: k, Redis: own})
	a.says(http.StatusServiceUnavailable, "redis.prefix", own.Prefix, kept.Prefix)
}

// TestWarnings: what an operator should look at costs no readiness, and names no app.
func TestWarnings(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	a := process(t, health.Options{Kafka: k, Counts: true, Peer: &pb.Peer{RedisPrefix: "belfry:"}})
	if r := a.says(http.StatusOK); len(r.Warnings) > 0 {
		t.Errorf("nothing is wrong, and it warns: %q", r.Warnings)
	}
	destination := func(name string, s pb.DestinationState) *pb.DestinationStatus {
		return &pb.DestinationStatus{App: "secretapp", Name: name, State: s}
	}
	status := &pb.LaneStatus{
		Platform: pb.Platform_PLATFORM_APNS, Class: pb.Class_CLASS_BULK, Instance: "i", At: time.Now().UnixMilli(),
		Destinations: []*pb.DestinationStatus{
			destination("a", pb.DestinationState_DESTINATION_STATE_BLOCKED), destination("b", pb.DestinationState_DESTINATION_STATE_BLOCKED),
			destination("c", pb.DestinationState_DESTINATION_STATE_STOPPED), destination("d", pb.DestinationState_DESTINATION_STATE_OPEN),
		},
	}
	peer := &pb.LaneStatus{Instance: "other", At: time.Now().UnixMilli(), Peer: &pb.Peer{
		RedisPrefix: "belfry:", Apps: map[string]*pb.AppPrint{"secretapp": {}},
	}}
	record := func(topic, key string, m proto.Message) *kgo.Record {
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Topic: topic, Key: []byte(key), Value: value}
	}
	held := &pb.HeldEvent{Event: []byte("{}")}
	streamtest.Produce(t, k,
		record(schemas.TopicLanes, "peer/other/", peer),
		record(schemas.TopicHeld(pb.Platform_PLATFORM_FCM), "secretapp", held), record(schemas.TopicHeld(pb.Platform_PLATFORM_FCM), "secretapp", held),
		record(schemas.TopicSend(pb.Platform_PLATFORM_WEBPUSH, pb.Class_CLASS_URGENT), "secretapp", &pb.Delivery{}),
	)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // a lane speaks each second
		defer close(done)
		client := streamtest.Client(t, k)
		for {
			r := record(k.Topic(schemas.TopicLanes), "apns/bulk/i", status)
			if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil && !errors.Is(err, kgo.ErrClientClosed) {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	defer func() { close(stop); <-done }()
	r := a.says(http.StatusOK,
		"2 destinations wait for a process that has their credential", "1 destinations are stopped",
		"2 events wait on fcm for a process that knows their app's rules",
		"1 deliveries wait, and no process runs senders.webpush.urgent", "1 processes were told otherwise")
	if all := strings.Join(r.Warnings, " "); strings.Contains(all, "secretapp") || len(r.Warnings) != 5 {
		t.Errorf("got %q", r.Warnings)
	}
}

// TestTheDiskIsFull: what the embedded Kafka has no room for.
func TestTheDiskIsFull(t *testing.T) {
	k, _ := streamtest.OnSmallDisk(t, 16<<20)
	a := process(t, health.Options{Kafka: k})
	a.says(http.StatusOK)
	client := streamtest.Client(t, k, kgo.ProducerBatchCompression(kgo.NoCompression()))
	ctx, cancel := context.WithCancel(t.Context())
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		for range 300 {
			_ = client.ProduceSync(ctx, &kgo.Record{Topic: k.Topic(schemas.TopicEvents), Value: make([]byte, 100_000)}).FirstErr() // until there is no room
		}
	}()
	defer func() { cancel(); <-filled }()
	a.says(http.StatusServiceUnavailable, "is full")
}
