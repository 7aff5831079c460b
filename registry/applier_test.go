package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func produce(t *testing.T, k *stream.Kafka, records ...record) {
	t.Helper()
	client := streamtest.Client(t, k)
	for _, r := range records {
		// One at a time: the order matters.
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic(schemas.TopicDevices), Key: r.key, Value: r.value}).FirstErr()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// run starts an applier that ends with the test, or when stop is called.
func run(t *testing.T, k *stream.Kafka, g *registry.Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- registry.NewApplier(k, g).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the applier ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the applier did not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits until check holds. What it waits for has no event to hear: it happens in Redis.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !check() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func has(t *testing.T, g *registry.Registry, id string) func() bool {
	return func() bool { _, err := g.Get(t.Context(), "shop", id); return err == nil }
}

func TestApplierFollowsTheTopic(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		k := streamtest.Kafka(t)
		g := registry.New(r)
		a, b := device("a", apns), device("b", fcm)
		produce(t, k,
			registered(t, a),
			record{key: schemas.DeviceKey("shop", "broken"), value: []byte("{}")},
			registered(t, b),
			gone(t, "a", 500),
			gone(t, "b", 2000),
			registered(t, device("c", webpush)),
			removed("c"),
			registered(t, device("last", apns)),
		)
		stop := run(t, k, g)
		eventually(t, "all is applied", func() bool {
			_, errB := g.Get(t.Context(), "shop", "b")
			_, errC := g.Get(t.Context(), "shop", "c")
			return has(t, g, "last")() && has(t, g, "a")() && errors.Is(errB, registry.ErrNotFound) && errors.Is(errC, registry.ErrNotFound)
		})
		letters := deadLetters(t, k, 1)
		if l := letters[0]; l.Reason != "undecodable" || string(l.Raw) != "{}" || l.Source.GetTopic() != schemas.TopicDevices {
			t.Errorf("dead letter: %v", l)
		}
		stop()

		// The next process goes on where this one was.
		stop = run(t, k, g)
		produce(t, k, removed("a"), record{key: []byte("?"), value: []byte("?")})
		eventually(t, "a is removed", func() bool { return !has(t, g, "a")() })
		if letters := deadLetters(t, k, 2); letters[0].Source.Offset == letters[1].Source.Offset && string(letters[0].Raw) == string(letters[1].Raw) {
			t.Errorf("one record is in the dead letters twice: %v", letters)
		}
		stop()
	})
}

// deadLetters reads the first n there are.
func deadLetters(t *testing.T, k *stream.Kafka, n int) (letters []*pb.DeadLetter) {
	t.Helper()
	client := streamtest.Client(t, k, kgo.ConsumeTopics(k.Topic(schemas.TopicDeadOf(schemas.TopicDevices))),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	for len(letters) < n {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			l := new(pb.DeadLetter)
			if err := proto.Unmarshal(r.Value, l); err != nil {
				t.Error(err)
			}
			letters = append(letters, l)
		})
	}
	if len(letters) != n {
		t.Fatalf("%d dead letters, want %d", len(letters), n)
	}
	return letters
}

// said collects what is logged.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(p))
	return len(p), nil
}

func (s *said) count(words string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.Contains(l, words) {
			n++
		}
	}
	return n
}

// mortal is a Redis that the test can stop, and whose memory it can take.
func mortal(t *testing.T) (*miniredis.Miniredis, *registry.Registry) {
	t.Helper()
	server := miniredis.RunT(t)
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return server, registry.New(r)
}

func TestApplierOutlivesRedis(t *testing.T) {
	k := streamtest.Kafka(t)
	log := new(said)
	k.Log = slog.New(slog.NewTextHandler(log, nil))
	server, g := mortal(t)
	run(t, k, g)
	produce(t, k, registered(t, device("a", apns)))
	eventually(t, "a is applied", has(t, g, "a"))

	server.Close()
	// Of several partitions, so that several wait.
	produce(t, k, registered(t, device("b", apns)), registered(t, device("c", fcm)), registered(t, device("d", webpush)))
	eventually(t, "it says so", func() bool { return log.count("cannot be written") > 0 })
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		eventually(t, id+" is there", has(t, g, id))
	}
	eventually(t, "it says that it is over", func() bool { return log.count("answers again") == 1 })
	if n := log.count("cannot be written"); n != 1 {
		t.Errorf("it complained %d times of one outage", n)
	}
}

func TestApplierStopsWhileRedisIsAway(t *testing.T) {
	k := streamtest.Kafka(t)
	k.Log = slog.New(slog.DiscardHandler)
	server, g := mortal(t)
	stop := run(t, k, g)
	produce(t, k, registered(t, device("a", apns)))
	eventually(t, "a is applied", has(t, g, "a"))
	server.Close()
	produce(t, k, registered(t, device("b", apns)))
	stop()

	// Nothing was skipped.
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	run(t, k, g)
	eventually(t, "b is applied", has(t, g, "b"))
}

func TestApplierRebuildsWhatRedisLost(t *testing.T) {
	k := streamtest.Kafka(t)
	server, g := mortal(t)
	run(t, k, g)
	produce(t, k, registered(t, device("a", apns)), registered(t, device("b", fcm)))
	eventually(t, "both are applied", func() bool { return has(t, g, "a")() && has(t, g, "b")() })
	server.FlushAll()
	for _, id := range []string{"a", "b"} {
		eventually(t, id+" is back", func() bool {
			_, err := g.Get(t.Context(), "shop", id)
			if errors.Is(err, registry.ErrNotFound) {
				t.Fatal("a registry without memory said that there is no such device")
			}
			return err == nil
		})
	}
}
