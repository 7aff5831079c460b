package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/failpoint"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// raise gives belfry.devices 14 partitions, and waits until that shows.
func raise(t *testing.T, k *stream.Kafka) {
	t.Helper()
	topic := k.Topic(schemas.TopicDevices)
	adm := kadm.NewClient(streamtest.Client(t, k))
	resp, err := adm.UpdatePartitions(t.Context(), 14, topic)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the partitions show", func() bool {
		there, err := adm.ListTopics(t.Context(), topic)
		return err == nil && len(there[topic].Partitions) == 14
	})
}

// removed asks the API to remove devices, and waits until it has them no more.
func (w *world) removed(from, to int) {
	w.t.Helper()
	for i := from; i < to; i++ {
		if a := w.call("demo", http.MethodDelete, fmt.Sprintf("/v1/devices/d-%06d", i), ""); a.status/100 != 2 {
			w.t.Fatalf("delete: %d %s", a.status, a.body)
		}
	}
	for i := from; i < to; i++ {
		until(w.t, fmt.Sprintf("device %d is gone", i), func() bool {
			return w.call("demo", http.MethodGet, fmt.Sprintf("/v1/devices/d-%06d", i), "").status == http.StatusNotFound
		})
	}
}

// only asserts that the devices from a number on are there, and no others, once the registry was made anew.
func (w *world) only(from int) {
	w.t.Helper()
	for i := range w.devices {
		want := http.StatusNotFound
		if i >= from {
			want = http.StatusOK
		}
		var got int
		for begun := time.Now(); got != want && time.Since(begun) < patience; time.Sleep(50 * time.Millisecond) { // the registry catches up
			got = w.call("demo", http.MethodGet, fmt.Sprintf("/v1/devices/d-%06d", i), "").status
		}
		if got != want {
			w.t.Errorf("device %d: %d, want %d", i, got, want)
		}
	}
}

// Field case 20: belfry.devices is given two partitions more. What runs goes on and all that is removed is gone; what starts
// refuses, with the way out; and after that a registry that is made anew brings nobody back.
func TestPartitionsAreAddedUnderARunningBelfry(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	w := elsewhere(t, k)
	w.start()
	w.register("demo")
	w.removed(0, 10)
	raise(t, k)
	w.serve.says("level=ERROR", "belfry topics repair", k.Topic(schemas.TopicDevices)) // its clients see them by now
	w.removed(10, 40)
	w.refusesPartitions(k)

	if f := command(t, w.env, "topics", "repair"); f.code != 0 || !strings.Contains(f.out, "14 partitions, 12 noted; keys lie on the first 12") {
		t.Errorf("what repair would do: %d %s%s", f.code, f.out, f.log)
	}
	w.refusesPartitions(k) // that was dry
	w.belfry("topics", "repair", "--yes")
	w.removed(40, 45) // it has run all the while
	w.serve.stop()
	w.start() // makes the registry anew, where Redis is embedded
	w.only(45)
	w.removed(45, 47)
	w.campaign("demo", everyone("c1"))
	if p := w.ended("demo", "c1"); p.Planned != 3 {
		t.Errorf("planned %d for 3 devices", p.Planned)
	}
}

// refusesPartitions asserts that plan, check and serve refuse the cluster.
func (w *world) refusesPartitions(k *stream.Kafka) {
	w.t.Helper()
	const words = "has 14 partitions, and had 12"
	if f := command(w.t, w.env, "topics", "plan"); f.code == 0 || !strings.Contains(f.out, words) || !strings.Contains(f.log, "belfry topics repair") {
		w.t.Errorf("plan: %d %s%s", f.code, f.out, f.log)
	}
	f := command(w.t, w.env, "check")
	if _, after, found := strings.Cut(f.out, "fail  "+k.Topic(schemas.TopicDevices)); f.code == 0 || !found || !strings.Contains(after, words) || !strings.Contains(after, "→ belfry topics repair") {
		w.t.Errorf("check: %d %s%s", f.code, f.out, f.log)
	}
	next := *w // another process on the same cluster
	next.env = append(w.env[:len(w.env):len(w.env)], "BELFRY_LISTEN="+freeAddress(w.t), "BELFRY_INSTANCE=next")
	next.refused(k.Topic(schemas.TopicDevices), words, "removed ones come back", "belfry topics repair")
}

// A cluster that was given partitions under an earlier release, which noted nothing: what it removed since lies elsewhere than
// the devices. It is refused for where its keys lie, repaired though the repair is killed twice, and the removed stay removed.
func TestPartitionsWereAddedUnderAnEarlierRelease(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	w := elsewhere(t, k)
	w.start()
	w.register("demo")
	w.serve.stop()
	raise(t, k)
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: &pb.ClusterConfig{Schema: 1, Shards: schemas.Shards}}})
	if err != nil {
		t.Fatal(err)
	}
	records := []*kgo.Record{{Topic: schemas.TopicControl, Key: []byte("cluster"), Value: value}}
	for i := range 20 {
		records = append(records, &kgo.Record{Topic: schemas.TopicDevices, Key: schemas.DeviceKey("demo", fmt.Sprintf("d-%06d", i))})
	}
	produce(t, &stream.Kafka{Brokers: k.Brokers, Prefix: k.Prefix, Log: k.Log}, records...)

	w.refused(k.Topic(schemas.TopicDevices), "its records lie where another number puts them", "belfry topics repair")
	for _, point := range []string{failpoint.Produced, failpoint.AfterCommit} {
		p := launch(t, "repair", append(w.env[:len(w.env):len(w.env)], "BELFRY_FAILPOINT="+point), "topics", "repair", "--yes")
		p.wait()
		if p.err == nil || !strings.Contains(p.err.Error(), "killed") {
			t.Fatalf("%s: %v, %s", point, p.err, p.log.String())
		}
	}
	w.refused("belfry topics repair") // nothing is noted before all is done
	w.belfry("topics", "repair", "--yes")
	w.start()
	w.only(20)
	w.removed(20, 40)
	w.serve.stop()
	w.start()
	w.only(40)
}

// The embedded Kafka's partitions too: it refuses them, and has the same way out.
func TestPartitionsOfTheEmbeddedKafka(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 50})
	w.start()
	w.register("demo")
	w.removed(0, 20)
	w.serve.stop()
	w.onKafka(func(k *stream.Kafka) { raise(t, k) })
	w.refused("devices", "has 14 partitions, and had 12", "belfry topics repair")
	w.belfry("topics", "repair", "--yes")
	w.start()
	w.removed(20, 40)
	w.only(40)
}
