package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// elsewhere is a world whose serve runs on a Kafka that it does not hold itself.
func elsewhere(t *testing.T, k *stream.Kafka) *world {
	t.Helper()
	w := newWorld(t, options{devices: 50})
	w.env = append(w.env, "BELFRY_KAFKA_BROKERS="+strings.Join(k.Brokers, ","), "BELFRY_KAFKA_PREFIX="+k.Prefix)
	w.prepare = func() {} // that is what these tests are about
	return w
}

// refused starts serve, which must end by itself, saying all the words.
func (w *world) refused(words ...string) {
	w.t.Helper()
	p := launch(w.t, "serve", w.env, "serve")
	p.wait()
	if p.err == nil {
		w.t.Errorf("serve ended well, and should have refused")
	}
	for _, word := range words {
		if !strings.Contains(p.log.String(), word) {
			w.t.Errorf("serve does not say %q, but:\n%s", word, p.log.tail())
		}
	}
}

func TestStartRefusesConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 1, edit: func(yaml string) string {
		return strings.Replace(yaml, "    apns:\n", "    apnz:\n", 1) + "kafka: {borkers: [\"127.0.0.1:1\"]}\n"
	}})
	w.refused("belfry.yaml:", "apps.demo.apnz: unknown key; did you mean \"apns\"", "kafka.borkers: unknown key; did you mean \"brokers\"")

	w = newWorld(t, options{devices: 1})
	w.prepare()
	if err := os.Remove(filepath.Join(w.dir, "sim", "demo", "apns.p8")); err != nil {
		t.Fatal(err)
	}
	w.refused("apns.p8", "no such file")

	w = newWorld(t, options{devices: 1})
	w.prepare()
	w.write("sim/demo/firebase.json", `{"type": "service_account"}`)
	w.refused("senders.fcm", "demo")
}

// Two that share a data folder would destroy each other's work.
func TestStartRefusesASecondOne(t *testing.T) {
	t.Parallel()
	if realKafka() != "" {
		t.Skip("the embedded Kafka's folder is not used on a real one")
	}
	w := newWorld(t, options{devices: 1})
	w.start()
	w.env = append(w.env, "BELFRY_LISTEN="+freeAddress(t))
	w.refused("is in use by another belfry")
}

func TestStartRefusesANewerCluster(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: &pb.ClusterConfig{
		Schema: stream.ClusterSchema + 1, Shards: schemas.Shards,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	produce(t, k, &kgo.Record{Topic: schemas.TopicControl, Key: []byte("cluster"), Value: value})
	elsewhere(t, k).refused("run a newer release")
}

// A Kafka that is away is waited for: serve says so, and starts when it comes.
func TestStartWaitsForKafka(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	w := elsewhere(t, k)
	door := freeAddress(t)
	w.env = append(w.env, "BELFRY_KAFKA_BROKERS="+door)
	w.serve = launch(t, "serve", w.env, "serve")
	w.serve.says("level=WARN", door)
	forward(t, door, k.Brokers[0])
	w.ready(w.serve)
	w.serve.stop() // the way to Kafka closes when nobody uses it any more
}

// The same for a Redis that is away.
func TestStartWaitsForRedis(t *testing.T) {
	needTools(t, "redis-server", "redis-cli")
	t.Parallel()
	dir := t.TempDir()
	address := script(t, "redis/redis-start", "--dir", dir)
	t.Cleanup(func() { script(t, "redis/redis-stop", "--dir", dir) })
	w := newWorld(t, options{devices: 50})
	door := freeAddress(t)
	w.env = append(w.env, "BELFRY_REDIS_ADDRESSES="+door)
	w.prepare()
	w.serve = launch(t, "serve", w.env, "serve")
	w.serve.says("level=WARN", "Redis", door)
	forward(t, door, address)
	w.ready(w.serve)
	w.register("demo")
	w.serve.stop()
}

// forward lets connections through to another address.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1]) // ends with either side
					way[0].Close()
				})
			}
		}
	})
}

// On a cluster without a topic the role that needs it says so, with the command that mends it, and goes on by itself after.
func TestStartOnAClusterWithoutATopic(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	topic := k.Topic(schemas.TopicSend(pb.Platform_PLATFORM_APNS, pb.Class_CLASS_BULK))
	if _, err := kadm.NewClient(streamtest.Client(t, k)).DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	w := elsewhere(t, k)
	until(t, "topics plan shows that the topic is missing", func() bool { return strings.Contains(w.belfry("topics", "plan"), topic) })
	w.start()
	w.serve.says(topic, "belfry topics apply")
	w.belfry("topics", "apply")
	w.register("demo")
	w.campaign("demo", everyone("c1"))
	w.balanced(w.ended("demo", "c1"))
}

// On a Kafka that nobody has prepared, or that is just being prepared, serve waits, and says in /readyz what for.
func TestStartWaitsForTopicsApply(t *testing.T) {
	t.Parallel()
	for name, topics := range map[string][]streamtest.Topic{
		"nothing there": {{Name: "unrelated", Partitions: 1}},
		"its topics":    nil, // all of the plan, and no record of the cluster yet
	} {
		t.Run(name, func(t *testing.T) {
			w := elsewhere(t, streamtest.Kafka(t, topics...))
			health := freeAddress(t)
			w.env = append(w.env, "BELFRY_HEALTH="+health)
			p := launch(t, "serve", w.env, "serve")
			until(t, "/readyz says what to do", func() bool { return strings.Contains(get("http://"+health+"/readyz"), "belfry topics apply") })
			w.belfry("topics", "apply")
			w.ready(p)
		})
	}
}

// SIGTERM while serve still waits for a Kafka that is away is a stop in good order: who deploys or rolls back sees no failure.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := elsewhere(t, &stream.Kafka{Brokers: []string{silent.Addr().String()}})
	p := launch(t, "serve", w.env, "serve")
	c, err := silent.Accept() // it asks, and is not answered
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.stop()
	if !p.said("told to stop before it served") {
		t.Errorf("it does not say so, but:\n%s", p.log.tail())
	}
}
