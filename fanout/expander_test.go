package fanout

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestLaneThatDoesNotDrainKeepsItsWorkAsChunks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devices("shop", 90_000)...)
	w.launched(running, 64, apns, fcm)
	w.start("a")
	// A reading every half second, and a chunk takes milliseconds: when the slower of two platforms, whose lane drains, is
	// through, the other has stood still for long.
	drain(w, fcm)
	w.books(fcm, 64, 30_000)
	// Transaction markers count as backlog too, and each of four sessions may have begun a chunk.
	if n := len(w.deliveries(apns, pb.Class_CLASS_BULK)); n < gateFloor/2 || n > gateFloor+4*600 {
		t.Errorf("%d deliveries on a lane that does not drain; the floor is %d", n, gateFloor)
	}
	drain(w, apns)
	w.books(apns, 64, 30_000)
}

// TestAbortedRecordsDoNotShutTheGate: a lane with nothing to do, whose topic ends with more aborted records than the gate's
// floor: what failing commits of the expander leave behind. The lane stands still until it is given work.
func TestAbortedRecordsDoNotShutTheGate(t *testing.T) {
	w := newWorld(t, devices("shop", 900)...)
	topic := w.kafka.Topic(schemas.TopicSend(apns, pb.Class_CLASS_BULK))
	client := streamtest.Client(t, w.kafka, kgo.TransactionalID(w.kafka.Topic("aborts")))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for range 2 * gateFloor {
		client.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("aborted")}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	n, err := stream.Backlog(t.Context(), w.kafka, kadm.NewClient(client), schemas.LaneRole(apns, pb.Class_CLASS_BULK), schemas.TopicSend(apns, pb.Class_CLASS_BULK))
	if err != nil || n < 2*gateFloor {
		t.Fatalf("nothing was aborted: %d offsets, %v", n, err)
	}
	w.launched(running, 64, apns)
	w.start("a")
	w.books(apns, 64, 300)
}

// drain is a lane that finishes whatever is there, until the test ends.
func drain(w *world, p pb.Platform) {
	topic := w.kafka.Topic(schemas.TopicSend(p, pb.Class_CLASS_BULK))
	group := w.kafka.Prefix + "senders." + schemas.PlatformName(p) + ".bulk"
	adm := kadm.NewClient(streamtest.Client(w, w.kafka))
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			ends, err := adm.ListEndOffsets(w.Context(), topic)
			if err == nil {
				_, err = adm.CommitOffsets(w.Context(), group, ends.Offsets())
			}
			select {
			case <-w.Context().Done():
				return
			case <-tick.C:
				if err != nil && w.Context().Err() == nil { // both may be there at the test's end
					w.Errorf("drain: %v", err)
					return
				}
			}
		}
	}()
}

func TestChunksOfAPausedRunLetOthersPass(t *testing.T) {
	w := newWorld(t, devices("shop", 300)...)
	w.launched(paused, schemas.Shards, apns)
	var records []*kgo.Record
	add := func(run string, index, total uint32) {
		c := &pb.Chunk{App: "shop", Run: run, Platform: apns, Index: index, Total: total, EndShard: schemas.Shards / 4}
		records = append(records, record(t, schemas.TopicChunks(apns), []byte("one partition"), c))
	}
	for i := range uint32(3 * queuedChunks) {
		add("c1", 1+i, 3*queuedChunks+1)
	}
	c2 := definition()
	c2.Id, c2.Epoch = "c2", 2
	run(c2, time.Now())
	w.produce(schemas.TopicCampaigns, schemas.Key("shop", "c2"), c2)
	add("c2", 9999, 1)
	streamtest.Produce(t, w.kafka, records...)
	w.start("a")
	if n := w.planned(apns, 1); n == 0 {
		t.Error("a paused run was expanded")
	}
	w.ask(commands["cancel"])
	w.campaign(is(cancelled))
	w.planned(apns, 3*queuedChunks+2) // every chunk that was put back is there, and counted once
}

func BenchmarkExpandDevice(b *testing.B) {
	c := definition()
	run(c, epoch)
	c.Audience = &pb.Audience{Filter: `locale startsWith "fr" and user != "u7"`}
	r, err := compile(c)
	if err != nil {
		b.Fatal(err)
	}
	d := phone(0)
	target := encoded(b, d.Target)
	x := newExpansion(c, r, apns, epoch)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.add(d, target); err != nil {
			b.Fatal(err)
		}
		if len(x.outs) == chunkDevices {
			x.outs = x.outs[:0]
		}
	}
}
