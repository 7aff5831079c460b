package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// marked is a cluster that is prepared, with the plan's topics.
func marked(t *testing.T) *stream.Kafka {
	t.Helper()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return k
}

// another is another process on the same cluster, which has not looked at it yet.
func another(k *stream.Kafka) *stream.Kafka {
	return &stream.Kafka{Brokers: k.Brokers, Prefix: k.Prefix, Instance: "another", Log: k.Log}
}

// keyedTopics are those whose keys must keep their partition, with the partitions of the plan.
func keyedTopics() map[string]int {
	keyed := map[string]int{
		schemas.TopicDevices: 12, schemas.TopicCommands: 6, schemas.TopicCampaigns: 6, schemas.TopicAccounts: 6,
		schemas.TopicLanes: 1, schemas.TopicControl: 1,
	}
	for _, p := range schemas.Platforms {
		keyed[schemas.TopicResults(p)], keyed[schemas.TopicReplays(p)] = 6, 1
	}
	return keyed
}

func partitionsOf(t *testing.T, k *stream.Kafka, topic string) map[string]int32 {
	t.Helper()
	var records []*kgo.Record
	for i := range 50 {
		records = append(records, &kgo.Record{Topic: topic, Key: schemas.DeviceKey("app", fmt.Sprint("d", i)), Value: []byte("x")})
	}
	streamtest.Produce(t, k, records...)
	at := map[string]int32{}
	for _, r := range records {
		at[string(r.Key)] = r.Partition
	}
	return at
}

// TestKeysKeepTheirPartition: however many partitions a topic is given under a running process, and whatever its clients see,
// a key stays where it was; and no process starts before somebody has looked at it.
func TestKeysKeepTheirPartition(t *testing.T) {
	k := marked(t)
	before := map[string]map[string]int32{}
	for topic := range keyedTopics() {
		if topic != schemas.TopicControl { // the cluster's record must be readable
			before[topic] = partitionsOf(t, k, topic)
		}
	}
	for topic, n := range keyedTopics() {
		raise(t, k, topic, n+2)
	}
	same := func(k *stream.Kafka, who string) {
		for topic, was := range before {
			for key, is := range partitionsOf(t, k, topic) {
				if is != was[key] {
					t.Fatalf("%s: key %s of %s lies on %d, and lay on %d", who, key, topic, is, was[key])
				}
			}
		}
	}
	same(k, "a process that runs")

	next := another(k)
	err := stream.CheckCluster(t.Context(), next)
	changes, planned := stream.PlanTopics(t.Context(), next)
	if err == nil || planned != nil {
		t.Fatalf("a process starts: %v, %v", err, planned)
	}
	conflicts := map[string]string{}
	for _, c := range changes {
		if c.Kind == stream.Conflict {
			conflicts[c.Topic] = c.Detail
		}
	}
	for topic, n := range keyedTopics() {
		words := fmt.Sprintf("has %d partitions, and had %d", n+2, n)
		if !strings.Contains(err.Error(), k.Topic(topic)+" "+words) || !strings.Contains(conflicts[k.Topic(topic)], words) {
			t.Errorf("%s: neither plan nor start may pass over it: %q, %v", topic, conflicts[k.Topic(topic)], err)
		}
	}
	if !strings.Contains(err.Error(), "belfry topics repair") || !strings.Contains(err.Error(), "removed ones come back") {
		t.Errorf("no way out in %v", err)
	}
	if _, err := stream.ApplyTopics(t.Context(), next); err == nil || !strings.Contains(err.Error(), "belfry topics repair") {
		t.Errorf("apply: %v", err)
	}

	for _, write := range []bool{false, true} {
		repairs, err := stream.RepairTopics(t.Context(), next, write)
		if err != nil || len(repairs) != len(keyedTopics()) {
			t.Fatalf("repair: %v, %v", repairs, err)
		}
		for _, r := range repairs {
			if r.Noted+2 != r.Partitions || r.Spread != r.Noted || len(r.Moves) > 0 || r.Stale > 0 {
				t.Errorf("nothing was misplaced, and there is to be done: %+v", r)
			}
		}
		if next := another(k); (stream.CheckCluster(t.Context(), next) == nil) != write {
			t.Errorf("after a repair that writes (%v) a process starts: %v", write, !write)
		}
	}
	started := another(k)
	if err := stream.CheckCluster(t.Context(), started); err != nil {
		t.Fatal(err)
	}
	same(started, "one that has started since")
	if changes, err := stream.PlanTopics(t.Context(), started); err != nil || len(changes) > 0 {
		t.Errorf("the plan still has %v, %v", changes, err)
	}
}

// TestMoreThanPlannedFromTheStart is an operator's choice, but for what one process must know alone.
func TestMoreThanPlannedFromTheStart(t *testing.T) {
	replays := schemas.TopicReplays(pb.Platform_PLATFORM_FCM)
	k := streamtest.Kafka(t, streamtest.Topic{Name: schemas.TopicDevices, Partitions: 20, Compact: true}, streamtest.Topic{Name: replays, Partitions: 3})
	prepare := func() error {
		if _, err := stream.ApplyTopics(t.Context(), k); err != nil {
			return err
		}
		if err := stream.WaitForTopics(t.Context(), k); err != nil {
			return err
		}
		return stream.MarkCluster(t.Context(), k)
	}
	if err := prepare(); err != nil {
		t.Fatal(err)
	}
	if err := stream.CheckCluster(t.Context(), another(k)); err != nil {
		t.Fatal(err)
	}
	if err := prepare(); err != nil { // as before the next release
		t.Fatal(err)
	}
	used := map[int32]bool{}
	for _, p := range partitionsOf(t, k, schemas.TopicDevices) {
		used[p] = p >= 12
	}
	if !used[12] && !used[13] && !used[14] && !used[15] && !used[16] && !used[17] && !used[18] && !used[19] {
		t.Errorf("50 devices lie on %v of 20 partitions", used)
	}
	for key, p := range partitionsOf(t, k, replays) {
		if p != 0 {
			t.Fatalf("the replay %s lies on %d: nobody knows it there", key, p)
		}
	}
}

// TestADeletedKeyedTopicIsMadeAgainAsItWas, for its keys are placed so.
func TestADeletedKeyedTopicIsMadeAgainAsItWas(t *testing.T) {
	k := streamtest.Kafka(t, streamtest.Topic{Name: schemas.TopicCommands, Partitions: 9})
	apply := func() {
		t.Helper()
		if _, err := stream.ApplyTopics(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if err := stream.WaitForTopics(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if err := stream.MarkCluster(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.DeleteTopics(t.Context(), k.Topic(schemas.TopicCommands)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		there, err := adm.ListTopics(t.Context(), k.Topic(schemas.TopicCommands))
		return err == nil && there.Error() != nil
	})
	apply()
	there, err := kadm.NewClient(streamtest.Client(t, k)).ListTopics(t.Context(), k.Topic(schemas.TopicCommands)) // adm remembers
	if n := len(there[k.Topic(schemas.TopicCommands)].Partitions); err != nil || n != 9 {
		t.Errorf("%d partitions, %v", n, err)
	}
}

// TestStraysOfALogAreBroughtHome: a record that somebody wrote to another partition than its key's is handled once, on its own.
func TestStraysOfALogAreBroughtHome(t *testing.T) {
	k := marked(t)
	topic := schemas.TopicResults(pb.Platform_PLATFORM_APNS)
	raise(t, k, topic, 8)
	home := partitionsOf(t, k, topic)
	manual := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for key := range home {
		r := &kgo.Record{Topic: k.Topic(topic), Partition: 7, Key: []byte(key), Value: []byte("stray"), Headers: []kgo.RecordHeader{{Key: "h"}}}
		if err := manual.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	strays := map[string]int{}
	handle := func(_ context.Context, tasks []*stream.Task) {
		mu.Lock()
		defer mu.Unlock()
		for _, task := range tasks {
			if task.Partition != home[string(task.Key)] {
				t.Errorf("%s is handled on %d, and belongs on %d", task.Key, task.Partition, home[string(task.Key)])
			}
			if string(task.Value) == "stray" && len(task.Headers) == 1 {
				strays[string(task.Key)]++
			}
			task.Done()
		}
	}
	c := stream.NewConsumer(k, stream.Options{Name: "ledger.apns", Topics: []string{topic}, Handle: handle})
	streamtest.Run(t, c.Run)
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(strays) == len(home)
	})
	adm := kadm.NewClient(manual)
	waitFor(t, func() bool {
		n, err := stream.Backlog(t.Context(), k, adm, "ledger.apns", topic)
		return err == nil && n < 20
	}) // markers
	mu.Lock()
	defer mu.Unlock()
	for key, n := range strays {
		if n != 1 {
			t.Errorf("the stray of %s was handled %d times", key, n)
		}
	}
}

// TestStraysOfStateAreNotTaken: an older copy elsewhere does not hide what is there, nor a tombstone remove it. It is said, and
// each ends as a dead letter.
func TestStraysOfStateAreNotTaken(t *testing.T) {
	k := marked(t)
	home := partitionsOf(t, k, schemas.TopicDevices)
	manual := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	i := 0
	for key, p := range home {
		r := &kgo.Record{Topic: k.Topic(schemas.TopicDevices), Partition: (p + 1) % 12, Key: []byte(key), Value: []byte("stray")}
		if i++; i%2 == 0 {
			r.Value = nil
		}
		if err := manual.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	v := stream.NewView(k, schemas.TopicDevices, func(r stream.ViewRecord) { seen[string(r.Key)] += string(r.Value) })
	streamtest.Run(t, v.Run)
	if err := v.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key := range home {
		if seen[key] != "x" {
			t.Fatalf("the view has %q of %s", seen[key], key)
		}
	}
	var log lines
	told := *k
	told.Log = slog.New(slog.NewTextHandler(&log, nil))
	handled := make(chan string, 1000)
	c := stream.NewConsumer(&told, stream.Options{Name: "registry", Topics: []string{schemas.TopicDevices}, Handle: func(_ context.Context, tasks []*stream.Task) {
		for _, task := range tasks {
			handled <- string(task.Value)
			task.Done()
		}
	}})
	streamtest.Run(t, c.Run)
	adm := kadm.NewClient(manual)
	waitFor(t, func() bool {
		n, err := stream.Backlog(t.Context(), k, adm, "registry", schemas.TopicDevices)
		return err == nil && n < 20 && len(handled) >= len(home) // markers
	})
	for range len(handled) {
		if value := <-handled; value != "x" {
			t.Fatalf("a consumer was given %q", value)
		}
	}
	letters := map[string]bool{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		l := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, l); err != nil || l.Reason != "misplaced" || letters[string(r.Key)] {
			t.Fatalf("dead letter %v, %v", l, err)
		}
		letters[string(r.Key)] = true
		return len(letters) < len(home)
	}, schemas.TopicDeadOf(schemas.TopicDevices))
	if n := log.count("somebody wrote records to a partition that is not their keys'"); n == 0 || n > 12 {
		t.Errorf("%d lines say so:\n%s", n, log.String())
	}
}

// TestWatchTellsOfChangedPartitions, once.
func TestWatchTellsOfChangedPartitions(t *testing.T) {
	k := marked(t)
	raise(t, k, schemas.TopicDevices, 14)
	raise(t, k, schemas.TopicEvents, 14) // may be
	var log lines
	told := *k
	told.Log = slog.New(slog.NewTextHandler(&log, nil))
	streamtest.Run(t, told.Watch)
	waitFor(t, func() bool { return log.count("belfry topics repair") == 1 })
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "partitions=14 before=12") || log.count("\n") != 1 {
		t.Errorf("the log is:\n%s", log.String())
	}
}

// TestTopicsThatAUserMayNotSee keep no process from starting that has nothing to do with them, once the cluster is prepared; but
// nothing is noted of what nobody has seen.
func TestTopicsThatAUserMayNotSee(t *testing.T) {
	k, cluster := streamtest.Embedded(t)
	hide := kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: k.Topic(schemas.TopicAccounts), Err: kerr.TopicAuthorizationFailed, Count: -1,
	}
	hidden := cluster.Fault(hide)
	if err := stream.MarkCluster(t.Context(), another(k)); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("it is prepared unseen: %v", err)
	}
	hidden.Remove()
	if err := stream.MarkCluster(t.Context(), another(k)); err != nil {
		t.Fatal(err)
	}
	hidden = cluster.Fault(hide)
	if err := stream.CheckCluster(t.Context(), another(k)); err != nil {
		t.Error(err)
	}
	if hidden.Hits() == 0 {
		t.Error("nothing was hidden")
	}
}
