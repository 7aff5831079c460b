package fanout

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// phone is a device as apps register them, some 180 bytes.
func phone(i int) *pb.Device {
	return &pb.Device{
		App: "shop", Id: fmt.Sprintf("device-%08d", i), User: fmt.Sprintf("user-%08d", i), Platform: apns,
		Locale: "fr-CA", AppVersion: "3.2.1", TimeZone: "America/Toronto", Tags: []string{"beta", "news"},
		Attributes: map[string]*pb.Value{
			"level": {Kind: &pb.Value_Number{Number: float64(i % 50)}},
			"plan":  {Kind: &pb.Value_Text{Text: "pro"}},
		},
		Target:       &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token(i)}}},
		RegisteredAt: epoch.UnixMilli(),
	}
}

// token is as random as Apple's, for what a codec makes of it.
func token(i int) []byte {
	a, b := schemas.DeliveryID("token", "a", strconv.Itoa(i), 0), schemas.DeliveryID("token", "b", strconv.Itoa(i), 0)
	return append(a[:], b[:]...)
}

// blast is a campaign to everyone that renders one variable.
func blast(id string) *pb.Campaign {
	c := definition()
	c.Id, c.Epoch, c.CreatedAt = id, 2, time.Now().UnixMilli()
	run(c, time.Now().Add(-ramp))
	return c
}

// BenchmarkExpandCommitted measures the whole way: chunks on Kafka, devices in Redis, deliveries in committed
// transactions; and in turns with it a bare franz-go client that writes the same records in transactions as large. CPU is
// this process's, so it needs a Kafka and a Redis of their own:
//
//	BELFRY_TEST_KAFKA=… BELFRY_TEST_REDIS=… go test -run '^$' -bench ExpandCommitted -benchtime 5x ./fanout
func BenchmarkExpandCommitted(b *testing.B) {
	if !streamtest.OnReal() || os.Getenv("BELFRY_TEST_REDIS") == "" {
		b.Skip("needs BELFRY_TEST_KAFKA and BELFRY_TEST_REDIS")
	}
	n := 200_000
	all := make([]*pb.Device, n)
	for i := range all {
		all[i] = phone(i)
	}
	w := newWorld(b, all...)
	clear(all)
	w.produce(schemas.TopicLanes, []byte("apns"), &pb.LaneStatus{
		Platform: apns, Class: pb.Class_CLASS_BULK, DrainRate: 1e9, At: time.Now().Add(time.Hour).UnixMilli(),
	})
	w.start("bench")
	counts := w.counts(apns)
	w.blast("warm")
	counts.wait(w, "warm", n)
	records := w.sent(apns, n)
	bare := newBare(w)
	bare.send(records)
	b.ReportAllocs()
	b.ResetTimer()
	var engine, baseline cost
	for i := range b.N {
		id := "run" + strconv.Itoa(i)
		w.blast(id)
		engine.add(func() { counts.wait(w, id, n) })
		baseline.add(func() { bare.send(records) })
	}
	per := float64(b.N * n)
	b.ReportMetric(engine.cpu.Seconds()/per*1e6, "cpu-s/M")
	b.ReportMetric(baseline.cpu.Seconds()/per*1e6, "bare-cpu-s/M")
	b.ReportMetric(baseline.cpu.Seconds()/engine.cpu.Seconds(), "ratio")
	b.ReportMetric(per/engine.wall.Seconds(), "devices/s")
	b.ReportMetric(per/baseline.wall.Seconds(), "bare/s")
}

// cost sums what this process spends.
type cost struct{ wall, cpu time.Duration }

func (c *cost) add(do func()) {
	wall, cpu := time.Now(), processCPU()
	do()
	c.wall += time.Since(wall)
	c.cpu += processCPU() - cpu
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// blast launches a campaign to everyone with the launcher's own chunks.
func (w *world) blast(id string) {
	w.Helper()
	c := blast(id)
	chunks, err := cutChunks(w.Context(), w.registry, c)
	if err != nil {
		w.Fatal(err)
	}
	begin(c, chunks, time.Now())
	outs, err := chunkOutputs(chunks)
	if err != nil {
		w.Fatal(err)
	}
	records := []*kgo.Record{record(w, schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)}
	for _, o := range outs {
		records = append(records, &kgo.Record{Topic: o.Topic, Key: o.Key, Value: o.Value})
	}
	streamtest.Produce(w, w.kafka, records...)
}

// counts is how many deliveries each run has been counted as planned, as the ledger reads it.
type counts struct {
	mu      sync.Mutex
	planned map[string]int
	changed chan struct{}
}

func (w *world) counts(p pb.Platform) *counts {
	c := &counts{planned: map[string]int{}, changed: make(chan struct{}, 1)}
	client := streamtest.Client(w, w.kafka, kgo.ConsumeTopics(w.kafka.Topic(schemas.TopicResults(p))), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for r := range client.PollFetches(ctx).RecordsAll() {
				c.count(r)
			}
		}
	}()
	w.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *counts) count(r *kgo.Record) {
	var batch pb.ResultBatch
	if err := proto.Unmarshal(r.Value, &batch); err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range batch.Expanded {
		c.planned[string(r.Key)] += int(x.Planned)
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *counts) wait(w *world, id string, n int) {
	w.Helper()
	timeout := time.After(time.Minute)
	for {
		c.mu.Lock()
		got := c.planned["shop/"+id]
		c.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-c.changed:
		case <-timeout:
			w.Fatalf("%d of %d deliveries of %s after a minute", got, n, id)
		}
	}
}

// corpus is records without pointers, so that the garbage collector has nothing to look through that only the benchmark
// keeps: key and value of each, one after the other.
type corpus struct {
	topic string
	bytes []byte
	ends  []uint32
}

// sent reads n deliveries back.
func (w *world) sent(p pb.Platform, n int) (c corpus) {
	c.topic = w.kafka.Topic(schemas.TopicSend(p, pb.Class_CLASS_BULK))
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		for _, part := range [][]byte{r.Key, r.Value} {
			c.bytes = append(c.bytes, part...)
			c.ends = append(c.ends, uint32(len(c.bytes)))
		}
		return len(c.ends) < 2*n
	}, schemas.TopicSend(p, pb.Class_CLASS_BULK))
	return c
}

func (c corpus) record(i int) *kgo.Record {
	from, key, end := uint32(0), c.ends[2*i], c.ends[2*i+1]
	if i > 0 {
		from = c.ends[2*i-1]
	}
	return &kgo.Record{Topic: c.topic, Key: c.bytes[from:key:key], Value: c.bytes[key:end:end]}
}

// bare is a plain transactional producer.
type bare struct {
	*world
	client *kgo.Client
}

func newBare(w *world) *bare {
	return &bare{w, streamtest.Client(w, w.kafka, kgo.TransactionalID(w.kafka.Prefix+"bare"), kgo.MaxBufferedRecords(1<<30), kgo.ManualFlushing())}
}

// send writes a corpus in transactions about as large as an expander's.
func (p *bare) send(c corpus) {
	p.Helper()
	for from, n := 0, len(c.ends)/2; from < n; {
		end := min(n, from+bareTransaction)
		if err := p.client.BeginTransaction(); err != nil {
			p.Fatal(err)
		}
		for ; from < end; from++ {
			p.client.Produce(p.Context(), c.record(from), func(_ *kgo.Record, err error) {
				if err != nil {
					p.Error(err)
				}
			})
		}
		if err := p.client.Flush(p.Context()); err != nil {
			p.Fatal(err)
		}
		if err := p.client.EndTransaction(p.Context(), kgo.TryCommit); err != nil {
			p.Fatal(err)
		}
	}
}

const bareTransaction = 15_000
