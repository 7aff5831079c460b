package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// startGuarded runs a ledger that pauses campaigns by the defaults.
func startGuarded(t *testing.T, k *stream.Kafka) {
	t.Helper()
	rdb := registrytest.Redis(t)
	streamtest.Run(t, New(Options{Kafka: k, Redis: rdb.UniversalClient, Prefix: rdb.Prefix}).Run)
}

// report writes so many results of a run, ten to a record.
func report(t *testing.T, k *stream.Kafka, run string, n int, result func(i int) *pb.Result) {
	t.Helper()
	var records []*kgo.Record
	for i := 0; i < n; i += 10 {
		var value []byte
		for j := i; j < min(i+10, n); j++ {
			value = schemas.AppendResult(value, result(j))
		}
		records = append(records, &kgo.Record{Topic: schemas.TopicResults(pb.Platform_PLATFORM_FCM), Key: schemas.Key(app, run), Value: value})
	}
	streamtest.Produce(t, k, records...)
}

func mixed(good int, bad *pb.Result) func(int) *pb.Result {
	return func(i int) *pb.Result {
		if i%10 < good {
			return &pb.Result{Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: 1}
		}
		r := proto.CloneOf(bad)
		r.Invalid = &pb.Invalid{Device: fmt.Sprint("d", i), At: 20, RegisteredAt: 10}
		return r
	}
}

func TestMessageThatIsWrongPausesItsCampaign(t *testing.T) {
	k := streamtest.Kafka(t)
	startGuarded(t, k)
	wrong := &pb.Result{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "INVALID_ARGUMENT", Message: true, At: 1}
	report(t, k, "few", 90, mixed(0, wrong))   // too few to judge
	report(t, k, "half", 500, mixed(5, wrong)) // not more than half
	report(t, k, schemas.RunMessages, 500, mixed(0, wrong))
	report(t, k, "wrong", 500, mixed(4, wrong))
	awaitCounted(t, k)
	report(t, k, "wrong", 500, mixed(0, wrong)) // somebody has resumed it
	awaitCounted(t, k)
	report(t, k, "last", 500, mixed(0, wrong))
	var paused []*pb.Command
	last := false
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		c := &pb.Command{}
		if err := proto.Unmarshal(r.Value, c); err != nil {
			t.Fatal(err)
		}
		if string(r.Key) != app+"/"+c.Campaign {
			t.Errorf("%s under key %s", c.Campaign, r.Key)
		}
		if c.Campaign == "last" {
			last = true
		} else {
			paused = append(paused, c)
		}
		return !last || len(paused) == 0
	}, schemas.TopicCommands)
	reason := paused[0].GetPause().GetReason()
	if len(paused) != 1 || paused[0].Campaign != "wrong" || !strings.Contains(reason, "message is wrong") || !strings.Contains(reason, "INVALID_ARGUMENT") {
		t.Errorf("commands: %v", paused)
	}
}

// A provider that knows none of an app's devices does not empty its registry.
func TestMassInvalidationStopsHygieneUntilItIsLifted(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	startGuarded(t, k)
	gone := &pb.Result{Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Code: "UNREGISTERED", At: 20}
	report(t, k, "blast", 2000, mixed(1, gone))
	name := control.Hygiene(pb.Platform_PLATFORM_FCM, app)
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		c := &pb.Control{}
		if err := proto.Unmarshal(r.Value, c); err != nil {
			t.Fatal(err)
		}
		if got := c.GetRestraint(); string(r.Key) != string(name) || !got.GetPaused() || got.By != "ledger" || !strings.Contains(got.Reason, "no such device") {
			t.Errorf("%s: %v", r.Key, got)
		}
		return false
	}, schemas.TopicControl)
	awaitCounted(t, k)
	streamtest.Read(t, k, func(r *kgo.Record) bool { return false }, schemas.TopicCommands) // the campaign is paused

	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicControl, Key: []byte(name)})
	deadline := time.Now().Add(time.Minute)
	for removed := -1; removed < 0; {
		if time.Now().After(deadline) {
			t.Fatal("hygiene does not go on")
		}
		report(t, k, "next", 10, func(int) *pb.Result {
			return &pb.Result{Outcome: pb.Outcome_OUTCOME_UNREGISTERED, At: 20, Invalid: &pb.Invalid{Device: "last", At: 20, RegisteredAt: 10}}
		})
		report(t, k, "next", 30, mixed(10, gone)) // keeps it from being judged again
		awaitCounted(t, k)
		removed = gones(t, k)
	}
}

// gones counts the devices that were removed before the device "last", or returns -1 while that is not.
func gones(t *testing.T, k *stream.Kafka) int {
	t.Helper()
	seen := map[string]bool{}
	v := stream.NewView(k, schemas.TopicDevices, func(r stream.ViewRecord) { seen[string(r.Key)] = true })
	streamtest.Run(t, v.Run)
	<-v.Ready()
	if len(seen) > 110 {
		t.Fatalf("%d devices were removed, though the provider knew almost none of the app's", len(seen))
	}
	if !seen[string(schemas.DeviceGoneKey(app, "last"))] {
		return -1
	}
	return len(seen)
}

func TestWindowForgets(t *testing.T) {
	var w window
	now := time.Now()
	bad := &pb.ResultBatch{Results: []*pb.Result{{Outcome: pb.Outcome_OUTCOME_REJECTED, Message: true}}}
	for range 5 {
		w.add(bad, now)
	}
	w.add(bad, now.Add(judgedOver+time.Second))
	if w.answers != 1 || w.message != 1 {
		t.Errorf("after a minute it still counts %+v", w)
	}
	w.add(&pb.ResultBatch{Results: []*pb.Result{{Outcome: pb.Outcome_OUTCOME_EXPIRED}, {Outcome: pb.Outcome_OUTCOME_DEFERRED}}}, w.began)
	if w.answers != 1 {
		t.Error("what no provider has said counts")
	}
}
