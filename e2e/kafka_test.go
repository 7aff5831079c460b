package e2e

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// onKafka calls do with the Kafka that the world runs on. The embedded one is opened here, so serve must not run.
func (w *world) onKafka(do func(*stream.Kafka)) {
	w.t.Helper()
	w.openKafka(filepath.Join(w.dir, "data", "kafka"), do)
}

// onKafkaAsItLies is onKafka for reading only, on a copy: the next serve finds what a killed one left, not what was tidied
// up here.
func (w *world) onKafkaAsItLies(do func(*stream.Kafka)) {
	w.t.Helper()
	if realKafka() != "" {
		w.onKafka(do)
		return
	}
	dir := filepath.Join(w.t.TempDir(), "kafka")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(w.dir, "data", "kafka"))); err != nil {
		w.t.Fatal(err)
	}
	w.openKafka(dir, do)
}

func (w *world) openKafka(dir string, do func(*stream.Kafka)) {
	w.t.Helper()
	k := &stream.Kafka{Prefix: w.prefix, Instance: "test", Log: streamtest.Log(w.t)}
	if realKafka() != "" {
		k.Brokers = strings.Split(realKafka(), ",")
	} else {
		e, err := stream.StartEmbedded(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		defer e.Close()
		k.Brokers = e.Addrs()
	}
	do(k)
}

// committed calls each with every record that is committed on a topic by now.
func committed(t *testing.T, k *stream.Kafka, topic string, each func(*kgo.Record)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client, err := k.Client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeTopics(k.Topic(topic)), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	starts, err := adm.ListStartOffsets(ctx, k.Topic(topic))
	if err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, k.Topic(topic))
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(o.Topic, o.Partition); ok && start.Offset < o.Offset {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("reading %s: %v left", topic, left)
		}
		for r := range fetches.RecordsAll() {
			end, ok := left[r.Partition]
			if ok && r.Offset < end && !r.Attrs.IsControl() {
				each(r)
			}
			if ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		}
	}
}

// acceptedOnKafka counts the deliveries of some platforms of which Kafka holds the committed result "accepted".
func acceptedOnKafka(t *testing.T, k *stream.Kafka, platforms ...string) int64 {
	t.Helper()
	ids, twice := map[string]bool{}, 0
	for _, p := range schemas.Platforms {
		if !slices.Contains(platforms, schemas.PlatformName(p)) {
			continue
		}
		committed(t, k, schemas.TopicResults(p), func(r *kgo.Record) {
			var batch pb.ResultBatch
			if err := proto.Unmarshal(r.Value, &batch); err != nil {
				t.Fatal(err)
			}
			for _, one := range batch.Results {
				if one.Outcome == pb.Outcome_OUTCOME_ACCEPTED {
					if ids[string(one.Delivery)] {
						twice++
					}
					ids[string(one.Delivery)] = true
				}
			}
		})
	}
	if twice > 0 {
		t.Errorf("of %d deliveries there are two results that say they were accepted", twice)
	}
	return int64(len(ids))
}

// produce writes records to topics named without prefix, to partitions by their keys.
func produce(t *testing.T, k *stream.Kafka, records ...*kgo.Record) {
	t.Helper()
	write(t, k, nil, records)
}

// produceTo writes each record to the partition that it names.
func produceTo(t *testing.T, k *stream.Kafka, records ...*kgo.Record) {
	t.Helper()
	write(t, k, []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, records)
}

func write(t *testing.T, k *stream.Kafka, opts []kgo.Opt, records []*kgo.Record) {
	t.Helper()
	client, err := k.Client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, r := range records {
		r.Topic = k.Topic(r.Topic)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// removeTopics removes the topics of a prefix from the real Kafka when the test has ended.
func removeTopics(t *testing.T, prefix string) {
	t.Cleanup(func() {
		k := &stream.Kafka{Brokers: strings.Split(realKafka(), ","), Prefix: prefix, Log: slog.New(slog.DiscardHandler)}
		client, err := k.Client()
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		adm := kadm.NewClient(client)
		all, err := adm.ListTopics(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		var mine []string
		for name := range all {
			if strings.HasPrefix(name, prefix) {
				mine = append(mine, name)
			}
		}
		if _, err := adm.DeleteTopics(ctx, mine...); err != nil {
			t.Error(err)
		}
	})
}

// removeKeys removes the keys of a prefix from the real Redis when the test has ended.
func removeKeys(t *testing.T, prefix string) {
	t.Cleanup(func() {
		r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{realRedis()}, Prefix: prefix})
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		if err := r.RemoveAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
