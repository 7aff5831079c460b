package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const app = "shop"

// campaign is a run's whole life on one platform as results records, cut at random, and the account that it must come to.
func campaign(run string, p pb.Platform, deliveries int) ([]*kgo.Record, *pb.Account) {
	const chunks = 4
	var entries []entry
	for i := range chunks {
		planned := deliveries / chunks
		entries = append(entries, entry{expanded: &pb.Expanded{Chunk: uint32(i), Total: chunks, Planned: uint32(planned)}})
		for j := range planned {
			outcome := pb.Outcome(1 + j%6)
			entries = append(entries, entry{result: &pb.Result{Outcome: outcome, At: int64(1000 + j)}})
			if j%5 == 0 {
				entries = append(entries, entry{result: &pb.Result{Outcome: pb.Outcome_OUTCOME_DEFERRED, Code: "429", At: int64(900 + j)}})
			}
		}
	}
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	want := &pb.Account{App: app, Run: run, Platform: p}
	var records []*kgo.Record
	for len(entries) > 0 {
		n := min(len(entries), 1+rand.IntN(8))
		var value []byte
		for _, e := range entries[:n] {
			value = appendEntry(value, e)
		}
		entries = entries[n:]
		batch, err := decodeBatch(value)
		if err != nil {
			panic(err)
		}
		add(want, batch)
		records = append(records, &kgo.Record{Topic: schemas.TopicResults(p), Key: schemas.Key(app, run), Value: value})
	}
	return records, want
}

// start runs a ledger until the test ends, and returns what stops it and waits for it.
func start(t *testing.T, k *stream.Kafka) (stop func()) {
	rdb := registrytest.Redis(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- New(Options{Kafka: k, Redis: rdb.UniversalClient, Prefix: rdb.Prefix, AutoPause: map[string]AutoPause{app: {Percent: 100}}}).Run(ctx)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// fence does what a second process of the same name would: the ledger's open transaction is aborted, and its commits are
// refused until it has started over.
func fence(t *testing.T, k *stream.Kafka) {
	for _, p := range schemas.Platforms {
		id := k.Prefix + "ledger." + schemas.PlatformName(p) + "." + k.Instance
		client := streamtest.Client(t, k, kgo.TransactionalID(id))
		if _, _, err := client.ProducerID(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// groups asks about the ledger's three groups until ok holds for each, and tells how many of the results that are there
// now they have not committed.
func groups(t *testing.T, k *stream.Kafka, ok func(kadm.DescribedGroupLag) bool) (pending int64) {
	t.Helper()
	client, err := k.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, p := range schemas.Platforms {
		group := k.Prefix + "ledger." + schemas.PlatformName(p)
		for {
			lags, err := kadm.NewClient(client).Lag(ctx, group)
			if ctx.Err() != nil {
				t.Fatalf("group %s after a minute: %+v", group, lags[group])
			}
			if lag := lags[group]; err == nil && lag.Error() == nil && ok(lag) {
				pending += lag.Lag.Total()
				break
			}
		}
	}
	return pending
}

func pending(t *testing.T, k *stream.Kafka) int64 {
	t.Helper()
	return groups(t, k, func(kadm.DescribedGroupLag) bool { return true })
}

func awaitCounted(t *testing.T, k *stream.Kafka) {
	t.Helper()
	groups(t, k, func(l kadm.DescribedGroupLag) bool { return l.State == "Stable" && l.Lag.Total() == 0 })
}

// awaitMembers waits until so many ledgers share the partitions.
func awaitMembers(t *testing.T, k *stream.Kafka, n int) {
	t.Helper()
	groups(t, k, func(l kadm.DescribedGroupLag) bool { return l.State == "Stable" && len(l.Members) == n })
}

// awaitAccounts reads belfry.accounts until each account is as wanted.
func awaitAccounts(t *testing.T, k *stream.Kafka, wants map[string]*pb.Account) {
	t.Helper()
	right := map[string]bool{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		var got pb.Account
		if err := proto.Unmarshal(r.Value, &got); err != nil {
			t.Fatal(err)
		}
		want := wants[string(r.Key)]
		if ends(&got) > ends(want) || got.Deferred > want.Deferred {
			t.Fatalf("counted more than there was: %s", cmp.Diff(want, &got, protocmp.Transform()))
		}
		if proto.Equal(&got, want) {
			right[string(r.Key)] = true
		}
		return len(right) < len(wants)
	}, schemas.TopicAccounts)
}

// settles counts the settle commands on belfry.commands by id, up to a mark set now.
func settles(t *testing.T, k *stream.Kafka) map[string]int {
	t.Helper()
	adm := kadm.NewClient(streamtest.Client(t, k))
	topics, err := adm.ListTopics(t.Context(), k.Topic(schemas.TopicCommands))
	if err != nil {
		t.Fatal(err)
	}
	marks := len(topics[k.Topic(schemas.TopicCommands)].Partitions)
	marker := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range marks {
		r := &kgo.Record{Topic: k.Topic(schemas.TopicCommands), Partition: int32(i), Key: []byte("mark")}
		if err := marker.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	counts := map[string]int{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if string(r.Key) == "mark" {
			marks--
			return marks > 0
		}
		var c pb.Command
		if err := proto.Unmarshal(r.Value, &c); err != nil || c.GetSettle() == nil {
			t.Fatalf("a command that is no settle: %v, %v", &c, err)
		}
		if string(r.Key) != string(schemas.Key(c.App, c.Campaign)) {
			t.Errorf("settle of %s under key %s", c.Campaign, r.Key)
		}
		counts[c.Id]++
		return true
	}, schemas.TopicCommands)
	return counts
}

func TestBooksAreExactOverRestartsAndFencing(t *testing.T) {
	k := streamtest.Kafka(t)
	wants := map[string]*pb.Account{}
	var records []*kgo.Record
	for i := range 6 {
		for _, p := range schemas.Platforms {
			run := fmt.Sprint("run", i)
			more, want := campaign(run, p, 400)
			records = append(records, more...)
			wants[string(accountKey(app, run, p))] = want
		}
	}
	// Runs overlap, as they do when several campaigns are under way.
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })

	// Each strike meets a ledger that has accounts in memory and results to count.
	const strikes = 4
	other := *k
	other.Instance = "b"
	start(t, k)
	var stopOther func()
	struck := 0
	for i := range strikes {
		part := records[i*len(records)/strikes : (i+1)*len(records)/strikes]
		streamtest.Produce(t, k, part[:len(part)/2]...)
		awaitCounted(t, k)
		streamtest.Produce(t, k, part[len(part)/2:]...)
		if pending(t, k) > 0 {
			struck++
		}
		switch i {
		case 0: // another takes half of the partitions
			stopOther = start(t, &other)
			awaitMembers(t, k, 2)
		case 1:
			fence(t, k)
			fence(t, &other)
		case 2: // and gives them back
			stopOther()
			awaitMembers(t, k, 1)
		}
	}
	if struck == 0 {
		t.Fatal("no strike met results that were not counted")
	}
	awaitAccounts(t, k, wants)

	counts := settles(t, k)
	for key, want := range wants {
		id := "settle/" + want.Run + "/" + schemas.PlatformName(want.Platform)
		if counts[id] != 1 {
			t.Errorf("%s was settled %d times", key, counts[id])
		}
	}
	if len(counts) != len(wants) {
		t.Errorf("settled: %v", counts)
	}
	shown(t, k, wants)
}

// shown checks that a Redis which has lost everything can be made to show each account.
func shown(t *testing.T, k *stream.Kafka, wants map[string]*pb.Account) {
	t.Helper()
	rdb := registrytest.Redis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := Rebuild(ctx, Options{Kafka: k, Redis: rdb.UniversalClient, Prefix: rdb.Prefix}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i := range 6 {
		accounts, err := Read(ctx, rdb, rdb.Prefix, app, fmt.Sprint("run", i))
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range accounts {
			seen++
			want := wants[string(accountKey(app, got.Run, got.Platform))]
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("Redis shows (-want +got):\n%s", diff)
			}
		}
	}
	if seen != len(wants) {
		t.Errorf("Redis shows %d accounts of %d", seen, len(wants))
	}
}

// Hygiene goes the whole way: the registry's topic has the device's end beside its registration, on its partition.
func TestUnregisteredDeviceIsGone(t *testing.T) {
	k := streamtest.Kafka(t)
	start(t, k)
	const p = pb.Platform_PLATFORM_WEBPUSH
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicResults(p), Key: schemas.Key(app, "run"), Value: schemas.AppendResult(nil, &pb.Result{
		Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Code: "410", At: 20, Planned: true,
		Invalid: &pb.Invalid{Device: "phone", At: 20, RegisteredAt: 10},
	})})
	partitions := partitionsOf(t, k, schemas.TopicDevices)
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if string(r.Key) != string(schemas.DeviceGoneKey(app, "phone")) {
			t.Errorf("key %q", r.Key)
		}
		if want := schemas.DevicePartition(schemas.DeviceKey(app, "phone"), partitions); r.Partition != want {
			t.Errorf("on partition %d, the device's is %d", r.Partition, want)
		}
		return false
	}, schemas.TopicDevices)
}

func partitionsOf(t *testing.T, k *stream.Kafka, topic string) int32 {
	t.Helper()
	topics, err := kadm.NewClient(streamtest.Client(t, k)).ListTopics(t.Context(), k.Topic(topic))
	if err != nil {
		t.Fatal(err)
	}
	return int32(len(topics[k.Topic(topic)].Partitions))
}

func TestUnreadableRecordsAreDeadOnceAndThePartitionMovesOn(t *testing.T) {
	k := streamtest.Kafka(t)
	const p = pb.Platform_PLATFORM_FCM
	accepted := schemas.AppendResult(nil, &pb.Result{Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: 1, Planned: true})
	bad := []*kgo.Record{
		{Key: schemas.Key(app, "run"), Value: []byte("not protobuf")},
		{Key: []byte("no-run"), Value: accepted},
		{Key: nil, Value: accepted},
		{Key: []byte(app + "/\xff"), Value: accepted},
		{Key: schemas.Key(app, "run"), Value: schemas.AppendResult(nil, &pb.Result{Outcome: 99})},
	}
	good := &kgo.Record{Key: schemas.Key(app, "run"), Value: accepted}
	producer := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, r := range append(bad, good) {
		r.Topic = k.Topic(schemas.TopicResults(p))
		if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	stop := start(t, k)
	awaitAccounts(t, k, map[string]*pb.Account{
		string(accountKey(app, "run", p)): {App: app, Run: "run", Platform: p, Planned: 1, Accepted: 1, FirstAt: 1, LastAt: 1},
	})
	// A restart must not bury them twice.
	stop()
	start(t, k)
	good.Partition = 1 // another run's, to see that it runs again
	good.Key = schemas.Key(app, "run2")
	if err := producer.ProduceSync(t.Context(), good).FirstErr(); err != nil {
		t.Fatal(err)
	}
	awaitDeadOnce(t, k, p, bad)
}

func awaitDeadOnce(t *testing.T, k *stream.Kafka, p pb.Platform, bad []*kgo.Record) {
	t.Helper()
	second, buried := false, map[int64]int{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if r.Topic == k.Topic(schemas.TopicAccounts) {
			second = second || string(r.Key) == string(accountKey(app, "run2", p))
		} else {
			var letter pb.DeadLetter
			if err := proto.Unmarshal(r.Value, &letter); err != nil {
				t.Fatal(err)
			}
			if letter.Reason != "undecodable" || letter.Detail == "" || letter.Source.GetTopic() != schemas.TopicResults(p) {
				t.Errorf("dead letter %v", &letter)
			}
			buried[letter.Source.GetOffset()]++
		}
		return !second || len(buried) < len(bad)
	}, schemas.TopicAccounts, schemas.TopicDead(p))
	for offset, n := range buried {
		if n != 1 {
			t.Errorf("the record at offset %d was buried %d times", offset, n)
		}
	}
}
