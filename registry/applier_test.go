package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	late := time.After(2 * time.Minute)
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
	t.Parallel()
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

// mortal is a Redis that a test can stop and start again on its port.
type mortal struct {
	*registry.Registry
	crash, restart func()
	// forgets tells whether a crash takes its memory.
	forgets bool
}

// eachMortal runs a test on the embedded Redis and, where redis-server is, on a real one that dies by SIGKILL.
func eachMortal(t *testing.T, test func(t *testing.T, m *mortal)) {
	t.Run("embedded", func(t *testing.T) {
		server := miniredis.RunT(t)
		test(t, &mortal{
			Registry: opened(t, server.Addr()), crash: server.Close,
			restart: func() {
				if err := server.Restart(); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
	t.Run("redis-server", func(t *testing.T) {
		if _, err := exec.LookPath("redis-server"); err != nil {
			t.Skip("redis-server is not installed")
		}
		s := &realRedis{t: t, dir: t.TempDir()}
		address := s.start()
		t.Cleanup(s.crash)
		test(t, &mortal{Registry: opened(t, address), crash: s.crash, restart: func() { s.start() }, forgets: true})
	})
}

func opened(t *testing.T, address string) *registry.Registry {
	t.Helper()
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return registry.New(r)
}

// realRedis is a server of scripts/redis.
type realRedis struct {
	t   *testing.T
	dir string
}

func (s *realRedis) start() (address string) {
	s.t.Helper()
	command := exec.Command("../scripts/redis/redis-start", "--dir", s.dir)
	command.Stderr = s.t.Output()
	out, err := command.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (s *realRedis) crash() { s.signal(syscall.SIGKILL) }

func (s *realRedis) signal(sig syscall.Signal) {
	pid, err := os.ReadFile(filepath.Join(s.dir, "nodes", "1", "pid"))
	if err != nil {
		s.t.Error(err)
		return
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		s.t.Error(err)
		return
	}
	if err := syscall.Kill(n, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Error(err)
	}
}

func TestApplierOutlivesRedis(t *testing.T) {
	t.Parallel()
	eachMortal(t, func(t *testing.T, m *mortal) {
		k := streamtest.Kafka(t)
		log := new(said)
		k.Log = slog.New(slog.NewTextHandler(log, nil))
		run(t, k, m.Registry)
		produce(t, k, registered(t, device("a", apns)))
		eventually(t, "a is applied", has(t, m.Registry, "a"))
		eventually(t, "it says that it was built", func() bool { return log.count("is rebuilt from Kafka") == 1 })

		m.crash()
		// Of several partitions, so that several wait.
		produce(t, k, registered(t, device("b", apns)), registered(t, device("c", fcm)), registered(t, device("d", webpush)))
		eventually(t, "it says so", func() bool { return log.count("cannot use Redis") > 0 })
		m.restart()
		for _, id := range []string{"a", "b", "c", "d"} {
			eventually(t, id+" is there", has(t, m.Registry, id))
		}
		eventually(t, "it says that it is over", func() bool { return log.count("can use Redis again") == 1 })
		if n := log.count("cannot use Redis"); n != 1 {
			t.Errorf("it complained %d times of one outage", n)
		}
		builds := 1
		if m.forgets {
			builds = 2
		}
		eventually(t, "it says that it was rebuilt", func() bool { return log.count("is rebuilt from Kafka") >= builds })
		if n := log.count("is rebuilt from Kafka"); n != builds {
			t.Errorf("it was rebuilt %d times; memory was lost: %v", n, m.forgets)
		}
	})
}

func TestApplierStopsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	eachMortal(t, func(t *testing.T, m *mortal) {
		k := streamtest.Kafka(t)
		k.Log = slog.New(slog.DiscardHandler)
		stop := run(t, k, m.Registry)
		produce(t, k, registered(t, device("a", apns)))
		eventually(t, "a is applied", has(t, m.Registry, "a"))
		m.crash()
		produce(t, k, registered(t, device("b", apns)))
		stop()

		m.restart()
		run(t, k, m.Registry)
		eventually(t, "b was not skipped", has(t, m.Registry, "b"))
		eventually(t, "a is there", has(t, m.Registry, "a"))
	})
}

// A Redis that hangs answers nothing and refuses nothing.
func TestApplierStopsWhileRedisHangs(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	s := &realRedis{t: t, dir: t.TempDir()}
	g := opened(t, s.start())
	t.Cleanup(s.crash)
	k := streamtest.Kafka(t)
	log := new(said)
	k.Log = slog.New(slog.NewTextHandler(log, nil))
	stop := run(t, k, g)
	produce(t, k, registered(t, device("a", apns)))
	eventually(t, "a is applied", has(t, g, "a"))
	s.signal(syscall.SIGSTOP)
	produce(t, k, registered(t, device("b", apns)))
	eventually(t, "it says that nothing answers", func() bool { return log.count("cannot use Redis") > 0 })
	stop()
	if log.count("did not end in time") > 0 {
		t.Error("its tasks were not given back before the partitions had to go")
	}
	s.signal(syscall.SIGCONT)
	run(t, k, g)
	eventually(t, "b was not skipped", has(t, g, "b"))
}

func TestApplierRebuildsWhatRedisLost(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	server := miniredis.RunT(t)
	g := opened(t, server.Addr())
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
