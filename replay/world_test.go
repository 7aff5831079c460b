package replay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const (
	fcm     = pb.Platform_PLATFORM_FCM
	webpush = pb.Platform_PLATFORM_WEBPUSH
	bulk    = pb.Class_CLASS_BULK
)

// world is a cluster with a replay's sources on it.
type world struct {
	t testing.TB
	k *stream.Kafka
}

func newWorld(t testing.TB) *world { return &world{t, streamtest.Kafka(t)} }

func (w *world) put(topic string, key []byte, m proto.Message) {
	w.t.Helper()
	streamtest.Produce(w.t, w.k, record(w.t, topic, key, m))
}

func record(t testing.TB, topic string, key []byte, m proto.Message) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: topic, Key: key}
	if m != nil {
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Value = value
	}
	return r
}

// delivery of one device in a campaign.
func delivery(run, device string, change ...func(*pb.Delivery)) *pb.Delivery {
	id := schemas.DeliveryID("shop", run, device, 0)
	d := &pb.Delivery{
		Id: id[:], App: "shop", Run: run, Device: device, Class: bulk, Attempt: 8, LastCode: "503",
		ExpiresAt: time.Now().Add(time.Hour).UnixMilli(),
		Target:    &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "t-" + device}}},
	}
	for _, c := range change {
		c(d)
	}
	return d
}

func onWebPush(host string) func(*pb.Delivery) {
	return func(d *pb.Delivery) {
		d.Target = &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: "https://" + host + "/p/" + d.Device}}}
	}
}

func expired(d *pb.Delivery) { d.ExpiresAt = 1 }

// letter is the delivery's, as a lane buries it.
func letter(d *pb.Delivery, change ...func(*pb.DeadLetter)) *pb.DeadLetter {
	l := &pb.DeadLetter{Delivery: d, Reason: "exhausted", Code: "503", Attempts: 8, LastAt: time.Now().UnixMilli()}
	for _, c := range change {
		c(l)
	}
	return l
}

// bury puts letters on a platform's topic.
func (w *world) bury(p pb.Platform, letters ...*pb.DeadLetter) {
	w.t.Helper()
	records := make([]*kgo.Record, len(letters))
	for i, l := range letters {
		key := []byte("shop/" + fmt.Sprint(i))
		if l.Delivery != nil {
			key = schemas.DeviceKey(l.Delivery.App, l.Delivery.Device)
		}
		records[i] = record(w.t, schemas.TopicDead(p), key, l)
	}
	streamtest.Produce(w.t, w.k, records...)
}

// ask writes what the API does for a new replay. Fields of r that are not set get what most tests want.
func (w *world) ask(r *pb.Replay) *pb.Replay {
	w.t.Helper()
	r.App = "shop"
	if r.Source == 0 {
		r.Source = pb.ReplaySource_REPLAY_SOURCE_DEAD
	}
	if r.Rate == 0 {
		r.Rate = 100_000
	}
	r.Wish = max(r.Wish, pb.ReplayWish_REPLAY_WISH_RUN)
	w.want(r)
	for _, p := range schemas.Platforms {
		w.first(r, p)
	}
	return r
}

// first writes a replay's first step.
func (w *world) first(r *pb.Replay, p pb.Platform) {
	w.t.Helper()
	w.put(schemas.TopicReplays(p), schemas.Key(r.App, r.Id), &pb.ReplayStep{App: r.App, Id: r.Id})
}

// want writes the replay as it is wanted.
func (w *world) want(r *pb.Replay) {
	w.t.Helper()
	w.put(schemas.TopicControl, schemas.ReplayKey(r.App, r.Id), &pb.Control{Kind: &pb.Control_Replay{Replay: r}})
}

// ended waits until a replay has ended on platforms, and returns how.
func (w *world) ended(id string, platforms ...pb.Platform) map[pb.Platform]*pb.ReplayProgress {
	w.t.Helper()
	got := map[pb.Platform]*pb.ReplayProgress{}
	streamtest.Read(w.t, w.k, func(r *kgo.Record) bool {
		_, of, p, ok := schemas.SplitReplayKey(r.Key)
		c := &pb.Control{}
		if err := proto.Unmarshal(r.Value, c); err != nil {
			w.t.Fatal(err)
		}
		for _, want := range platforms {
			if ok && of == id && p == want && c.GetReplayEnded() != nil {
				got[p] = c.GetReplayEnded()
			}
		}
		return len(got) < len(platforms)
	}, schemas.TopicControl)
	return got
}

// one waits for a replay's end on FCM.
func (w *world) one(id string) *pb.ReplayProgress {
	w.t.Helper()
	return w.ended(id, fcm)[fcm]
}

// all reads what is committed on a topic now.
func (w *world) all(topic string) []*kgo.Record {
	w.t.Helper()
	client := streamtest.Client(w.t, w.k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	there, err := kadm.NewClient(client).ListTopics(w.t.Context(), w.k.Topic(topic))
	if err != nil {
		w.t.Fatal(err)
	}
	marks := 0
	for n := range there[w.k.Topic(topic)].Partitions {
		marks++
		r := &kgo.Record{Topic: w.k.Topic(topic), Partition: n, Key: []byte("mark"), Value: []byte(w.t.Name())}
		if err := client.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
	var records []*kgo.Record
	last := map[int32]int64{}
	ends, err := kadm.NewClient(client).ListEndOffsets(w.t.Context(), w.k.Topic(topic))
	if err != nil {
		w.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { last[o.Partition] = o.Offset - 1 })
	streamtest.Read(w.t, w.k, func(r *kgo.Record) bool {
		if string(r.Key) != "mark" {
			records = append(records, r)
		} else if r.Offset == last[r.Partition] {
			marks--
		}
		return marks > 0
	}, topic)
	return records
}

// sent are the deliveries on a send topic by id.
func (w *world) sent(p pb.Platform, c pb.Class) map[string][]*pb.Delivery {
	w.t.Helper()
	got := map[string][]*pb.Delivery{}
	for _, r := range w.all(schemas.TopicSend(p, c)) {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.t.Fatal(err)
		}
		if string(r.Key) != string(schemas.DeviceKey(d.App, d.Device)) {
			w.t.Errorf("delivery of %s under key %s", d.Device, r.Key)
		}
		got[string(d.Id)] = append(got[string(d.Id)], d)
	}
	return got
}

// replayed adds up what the accounts are told, by run.
func (w *world) replayed(p pb.Platform) map[string]*pb.Replayed {
	w.t.Helper()
	sums := map[string]*pb.Replayed{}
	for _, r := range w.all(schemas.TopicResults(p)) {
		batch := &pb.ResultBatch{}
		if err := proto.Unmarshal(r.Value, batch); err != nil {
			w.t.Fatal(err)
		}
		for _, one := range batch.Replayed {
			if sums[string(r.Key)] == nil {
				sums[string(r.Key)] = &pb.Replayed{}
			}
			sums[string(r.Key)].Dead += one.Dead
			sums[string(r.Key)].Planned += one.Planned
		}
	}
	return sums
}
