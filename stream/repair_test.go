package stream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// writeDevices gives devices a value, by a client that places them as its process does; none removes them.
func writeDevices(t *testing.T, k *stream.Kafka, at time.Time, from, to int, value string) {
	t.Helper()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		r := &kgo.Record{Topic: schemas.TopicDevices, Key: schemas.DeviceKey("app", fmt.Sprint("d", i)), Timestamp: at}
		if value != "" {
			r.Value = []byte(value)
		}
		records = append(records, r)
	}
	streamtest.Produce(t, k, records...)
}

// devices is what a process that starts now reads.
func devices(t *testing.T, k *stream.Kafka) map[string]string {
	t.Helper()
	k = another(k)
	if err := stream.CheckCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	v := stream.NewView(k, schemas.TopicDevices, func(r stream.ViewRecord) {
		if found[string(r.Key)] = string(r.Value); r.Value == nil {
			delete(found, string(r.Key))
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	err := v.CatchUp(t.Context())
	stop()
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return found
}

// written is what 100 devices are after misplace.
func written() map[string]string {
	want := map[string]string{}
	for i := range 100 {
		switch key := string(schemas.DeviceKey("app", fmt.Sprint("d", i))); {
		case i < 30:
			want[key] = "before"
		case i < 60:
			want[key] = "changed"
		case i < 80: // removed
		default:
			want[key] = "new"
		}
	}
	return want
}

// misplace writes as an earlier release does where devices are given two partitions more: by the count that there is.
func misplace(t *testing.T, k *stream.Kafka) {
	t.Helper()
	earlier := another(k)
	then := time.Now().Add(-time.Hour)
	writeDevices(t, earlier, then, 0, 80, "before")
	raise(t, k, schemas.TopicDevices, 14)
	then = then.Add(time.Minute)
	writeDevices(t, earlier, then, 30, 60, "changed")
	writeDevices(t, earlier, then, 60, 80, "")
	writeDevices(t, earlier, then, 80, 100, "new")
}

func repairOf(t *testing.T, k *stream.Kafka, write bool) stream.TopicRepair {
	t.Helper()
	repairs, err := stream.RepairTopics(t.Context(), k, write)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range repairs {
		if r.Topic == k.Topic(schemas.TopicDevices) {
			return r
		}
	}
	t.Fatal("nothing is said of devices")
	return stream.TopicRepair{}
}

func keys(moves []stream.KeyMove) (n int) {
	for _, m := range moves {
		n += m.Keys
	}
	return n
}

// TestRepairOfWhatOthersMisplaced: keys stay where they were, and what somebody else put elsewhere comes back.
func TestRepairOfWhatOthersMisplaced(t *testing.T) {
	k := marked(t)
	misplace(t, k)
	dry := repairOf(t, another(k), false)
	if dry.Noted != 12 || dry.Partitions != 14 || dry.Spread != 12 || keys(dry.Moves) == 0 {
		t.Fatalf("it would do %+v", dry)
	}
	if again := repairOf(t, another(k), false); fmt.Sprint(again) != fmt.Sprint(dry) {
		t.Fatalf("a dry run has changed something: %+v, then %+v", dry, again)
	}
	if done := repairOf(t, another(k), true); fmt.Sprint(done) != fmt.Sprint(dry) {
		t.Errorf("it did %+v, and was to do %+v", done, dry)
	}
	if got := devices(t, k); !maps.Equal(got, written()) {
		t.Errorf("devices are %v", got)
	}
	if again := repairOf(t, another(k), false); keys(again.Moves) != 0 || again.Stale != 0 || !again.Nothing() {
		t.Errorf("there is something left: %+v", again)
	}
}

// TestRepairOfAnEarlierReleasesCluster, that was given partitions when nobody noticed: it is noticed by where its keys lie.
func TestRepairOfAnEarlierReleasesCluster(t *testing.T) {
	k := streamtest.Kafka(t)
	streamtest.Produce(t, k, clusterRecord(t, 1, schemas.Shards))
	misplace(t, k)
	for _, start := range []func(context.Context, *stream.Kafka) error{stream.CheckCluster, stream.MarkCluster} {
		if err := start(t.Context(), another(k)); err == nil {
			t.Fatal("it starts")
		}
	}
	if dry := repairOf(t, another(k), false); dry.Noted != 0 || dry.Partitions != 14 || dry.Spread != 14 || keys(dry.Moves) == 0 {
		t.Fatalf("it would do %+v", dry)
	}

	group, leave := k.Prefix+"registry", make(chan struct{})
	earlier, err := k.Client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(k.Topic(schemas.TopicDevices)))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(leave)
		earlier.PollFetches(t.Context())
		_, err := stream.RepairTopics(t.Context(), another(k), true)
		if !errors.Is(err, stream.ErrEarlierRelease) {
			t.Errorf("while an earlier release runs: %v", err)
		}
		earlier.Close()
	}()
	<-leave

	repairOf(t, another(k), true)
	if got := devices(t, k); !maps.Equal(got, written()) {
		t.Errorf("devices are %v", got)
	}
}

// TestAnEarlierReleasesClusterIsTaken as it is where its keys lie right.
func TestAnEarlierReleasesClusterIsTaken(t *testing.T) {
	k := streamtest.Kafka(t)
	streamtest.Produce(t, k, clusterRecord(t, 1, schemas.Shards))
	before := partitionsOf(t, k, schemas.TopicDevices)
	if err := stream.CheckCluster(t.Context(), another(k)); err != nil {
		t.Fatal(err)
	}
	raise(t, k, schemas.TopicDevices, 14)
	if err := stream.CheckCluster(t.Context(), another(k)); err == nil {
		t.Fatal("what it had was not noted")
	}
	repairOf(t, another(k), true)
	next := another(k)
	if err := stream.CheckCluster(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if after := partitionsOf(t, next, schemas.TopicDevices); !maps.Equal(after, before) {
		t.Errorf("keys lay on %v, and lie on %v", before, after)
	}
}

// TestRepairOfTooFewPartitions, as a broker makes them that makes topics by itself.
func TestRepairOfTooFewPartitions(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t, streamtest.Topic{Name: schemas.TopicDevices, Partitions: 3, Compact: true})
	writeDevices(t, k, time.Now(), 0, 100, "before")
	if _, err := stream.RepairTopics(t.Context(), another(k), true); !errors.Is(err, stream.ErrNoCluster) {
		t.Fatalf("without the other topics: %v", err)
	}
	if _, err := stream.ApplyTopics(t.Context(), another(k)); err == nil {
		t.Fatal("apply passes over it")
	}
	if r := repairOf(t, another(k), true); r.Partitions != 3 || r.Spread != 12 || keys(r.Moves) == 0 {
		t.Errorf("it did %+v", r)
	}
	waitFor(t, func() bool {
		changes, err := stream.PlanTopics(t.Context(), another(k))
		return err == nil && len(changes) == 0
	})
	if got := devices(t, k); len(got) != 100 {
		t.Errorf("devices are %v", got)
	}
}

// TestRepairBesideOthers: what is written while a repair writes is not put behind something older. The device is registered
// anew between the repair's look and its transaction, which must not be committed.
func TestRepairBesideOthers(t *testing.T) {
	k, cluster := streamtest.Embedded(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	misplace(t, k)
	writer := streamtest.Client(t, k)
	var struck, aborted atomic.Int32
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if id := req.(*kmsg.ProduceRequest).TransactionID; id == nil || struck.Swap(1) != 0 {
			return nil, nil, false
		}
		cluster.SleepControl(func() {
			for i := 30; i < 80; i++ {
				r := &kgo.Record{Topic: k.Topic(schemas.TopicDevices), Key: schemas.DeviceKey("app", fmt.Sprint("d", i)), Value: []byte("just now")}
				if err := writer.ProduceSync(context.Background(), r).FirstErr(); err != nil {
					t.Error(err)
				}
			}
		})
		return nil, nil, false
	})
	cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !req.(*kmsg.EndTxnRequest).Commit {
			aborted.Add(1)
		}
		return nil, nil, false
	})
	repairOf(t, another(k), true)
	if struck.Load() == 0 || aborted.Load() == 0 {
		t.Fatalf("others wrote %d times, and %d transactions were aborted", struck.Load(), aborted.Load())
	}
	want := written()
	for i := 30; i < 80; i++ {
		want[string(schemas.DeviceKey("app", fmt.Sprint("d", i)))] = "just now"
	}
	if got := devices(t, k); !maps.Equal(got, want) {
		t.Errorf("devices are %v", got)
	}
}

// TestTwoRepairsAtOnce: one ends the other, or both do the same.
func TestTwoRepairsAtOnce(t *testing.T) {
	k := marked(t)
	misplace(t, k)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := stream.RepairTopics(t.Context(), another(k), true)
			done <- err
		}()
	}
	if first, second := <-done, <-done; first != nil && second != nil {
		t.Fatalf("neither did it: %v, %v", first, second)
	}
	if got := devices(t, k); !maps.Equal(got, written()) {
		t.Errorf("devices are %v", got)
	}
}
