package producer_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// lane asks for a lane until it is as wanted, for two minutes at most, and returns what it was last.
func (a *api) lane(name string, wanted func(producer.Lane) bool) (lane producer.Lane) {
	a.t.Helper()
	for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(20 * time.Millisecond) {
		var list producer.LaneList
		a.call("GET", "/v1/lanes", "").read(a.t, &list)
		for _, l := range list.Lanes {
			if l.Lane == name {
				lane = l
			}
		}
		if wanted(lane) {
			return lane
		}
	}
	return lane
}

// TestWhatNobodyRunsIsCounted: 586 deliveries, and no process that sends them.
func TestWhatNobodyRunsIsCounted(t *testing.T) {
	k := streamtest.Kafka(t)
	records := make([]*kgo.Record, 586)
	for i := range records {
		records[i] = &kgo.Record{
			Topic: schemas.TopicSend(pb.Platform_PLATFORM_WEBPUSH, pb.Class_CLASS_BULK), Key: schemas.Key("shop", fmt.Sprint(i)), Value: []byte("x"),
		}
	}
	streamtest.Produce(t, k, records...)
	a := serve(t, k, registrytest.Redis(t))
	a.awaitReady()
	lane := a.lane("webpush/bulk", func(l producer.Lane) bool { return l.Backlog != nil })
	if lane.Instances != 0 || lane.Backlog == nil || *lane.Backlog != 586 || lane.OldestSeconds != nil {
		t.Errorf("got %+v", lane)
	}
}

func (a *api) awaitReady() {
	a.t.Helper()
	for begun := time.Now(); a.call("GET", "/readyz", "").status != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 2*time.Minute {
			a.t.Fatalf("never ready: %s", a.call("GET", "/readyz", "").body)
		}
	}
}

// TestLanesAreUnknownWhileKafkaIsAway: zeros would be taken for lanes that have nothing to do.
func TestLanesAreUnknownWhileKafkaIsAway(t *testing.T) {
	t.Parallel()
	k, cluster := streamtest.Embedded(t)
	a := serve(t, k, registrytest.Redis(t))
	a.awaitReady()
	if got := a.call("GET", "/v1/lanes", ""); got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	cluster.Close()
	got := answer{}
	for begun := time.Now(); got.status != http.StatusServiceUnavailable && time.Since(begun) < 2*time.Minute; time.Sleep(50 * time.Millisecond) {
		got = a.call("GET", "/v1/lanes", "")
	}
	if p := got.problem(t); !strings.Contains(p.Detail, "not known") {
		t.Errorf("got %d %s", p.Status, p.Detail)
	}
	a.notReady("No answer from Kafka")
}

// notReady asks until readyz says why, for two minutes at most.
func (a *api) notReady(why ...string) {
	a.t.Helper()
	var got answer
	for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		got = a.call("GET", "/readyz", "")
		says := got.status == http.StatusServiceUnavailable
		for _, one := range why {
			says = says && strings.Contains(got.body, one)
		}
		if says {
			return
		}
	}
	a.t.Errorf("readyz says %d %s, want %q", got.status, got.body, why)
}

// TestNotReadyWithoutTheRegistryThatIsKept: a producer with another redis.prefix than the registry's.
func TestNotReadyWithoutTheRegistryThatIsKept(t *testing.T) {
	k := streamtest.Kafka(t)
	kept, own := registrytest.Redis(t), registrytest.Redis(t)
	a := newAPI(t, k, own, streamtest.Log(t))
	streamtest.Run(t, a.Run)
	a.notReady("not complete yet")
	if err := registry.Rebuild(t.Context(), k, registry.New(kept), nil); err != nil {
		t.Fatal(err)
	}
	a.notReady("redis.prefix", kept.Prefix, own.Prefix)
	if err := registry.Rebuild(t.Context(), k, registry.New(own), nil); err != nil {
		t.Fatal(err)
	}
	a.awaitReady()
}
