package fanout

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// world is what a Fanout works on in a test.
type world struct {
	testing.TB
	kafka    *stream.Kafka
	redis    *registry.Redis
	registry *registry.Registry
}

func newWorld(t testing.TB, devices ...*pb.Device) *world {
	w := &world{TB: t, kafka: streamtest.Kafka(t), redis: registrytest.Redis(t)}
	w.registry = registrytest.Registry(t, w.redis, devices...)
	return w
}

// device makes the n-th device of an app: its platform is n modulo three, and every tenth belongs to user u<n/10>.
func device(app string, n int) *pb.Device {
	d := &pb.Device{
		App: app, Id: fmt.Sprintf("d%06d", n), User: "u" + strconv.Itoa(n/10), Locale: "fr-CA",
		Platform: schemas.Platforms[n%3], RegisteredAt: epoch.UnixMilli(), Target: &pb.Target{},
	}
	switch d.Platform {
	case apns:
		d.Target.Kind = &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: []byte(d.Id)}}
	case fcm:
		d.Target.Kind = &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: d.Id}}
	case webpush:
		d.Target.Kind = &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: "https://push.example/" + d.Id}}
	}
	return d
}

func devices(app string, n int) []*pb.Device {
	all := make([]*pb.Device, n)
	for i := range all {
		all[i] = device(app, i)
	}
	return all
}

func (w *world) options() Options { return Options{Kafka: w.kafka, Registry: w.registry} }

// start runs one instance of both roles until stop is called, or the test ends.
func (w *world) start(instance string, rules ...Rule) (stop func()) {
	w.Helper()
	k := *w.kafka
	k.Instance = instance
	o := w.options()
	o.Kafka = &k
	triggers, err := NewTriggers(TriggerOptions{
		Kafka: &k, Registry: w.registry, Redis: w.redis, Apps: []string{"shop"}, Rules: rules,
	})
	if err != nil {
		w.Fatal(err)
	}
	return w.runs(New(o).Run, triggers.Run)
}

// runs runs roles until stop is called, or the test ends.
func (w *world) runs(all ...func(context.Context) error) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var roles errgroup.Group
	for _, run := range all {
		roles.Go(func() error { return run(ctx) })
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := roles.Wait(); err != nil {
			w.Errorf("run: %v", err)
		}
	}
	w.Cleanup(stop)
	return stop
}

func (w *world) produce(topic string, key []byte, m proto.Message) {
	w.Helper()
	streamtest.Produce(w, w.kafka, record(w, topic, key, m))
}

func record(t testing.TB, topic string, key []byte, m proto.Message) *kgo.Record {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: topic, Key: key, Value: value}
}

// ask gives commands to campaign c1 of app shop. Their ids are their places in the test.
func (w *world) ask(cmds ...*pb.Command) {
	w.Helper()
	for _, cmd := range cmds {
		cmd = proto.CloneOf(cmd)
		if cmd.Id == "" {
			cmd.Id = strconv.FormatInt(time.Now().UnixNano(), 36)
		}
		cmd.App, cmd.Campaign = "shop", "c1"
		w.produce(schemas.TopicCommands, schemas.Key("shop", "c1"), cmd)
	}
}

func created(c *pb.Campaign) *pb.Command { return &pb.Command{Kind: &pb.Command_Create{Create: c}} }

func settles(p pb.Platform) *pb.Command {
	return &pb.Command{Kind: &pb.Command_Settle{Settle: &pb.Settle{Platform: p}}, At: time.Now().UnixMilli()}
}

// campaign waits until c1 is as wanted.
func (w *world) campaign(wanted func(*pb.Campaign) bool) (c *pb.Campaign) {
	w.Helper()
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		c = &pb.Campaign{}
		if err := proto.Unmarshal(r.Value, c); err != nil {
			w.Fatal(err)
		}
		return c.Id != "c1" || !wanted(c)
	}, schemas.TopicCampaigns)
	return c
}

func is(s pb.CampaignState) func(*pb.Campaign) bool {
	return func(c *pb.Campaign) bool { return c.State == s }
}

// launched writes c1 and chunks of so many shards as the launcher would, in a state of the test's choice.
func (w *world) launched(s pb.CampaignState, shards int, platforms ...pb.Platform) *pb.Campaign {
	w.Helper()
	return w.launchedAs(definition(), s, shards, platforms...)
}

func (w *world) launchedAs(c *pb.Campaign, s pb.CampaignState, shards int, platforms ...pb.Platform) *pb.Campaign {
	w.Helper()
	c.Epoch, c.CreatedAt = 2, time.Now().UnixMilli()
	run(c, time.Now().Add(-ramp))
	chunks := map[pb.Platform][]*pb.Chunk{}
	for _, p := range platforms {
		for first := 0; first < schemas.Shards; first += shards {
			chunks[p] = append(chunks[p], &pb.Chunk{
				App: c.App, Run: c.Id, Platform: p, Index: uint32(len(chunks[p])), Total: uint32((schemas.Shards + shards - 1) / shards),
				FirstShard: uint32(first), EndShard: uint32(min(first+shards, schemas.Shards)), Estimate: uint32(shards),
			})
		}
	}
	begin(c, chunks, time.Now())
	c.State = s
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
	outs, err := chunkOutputs(chunks)
	if err != nil {
		w.Fatal(err)
	}
	var records []*kgo.Record
	for _, o := range outs {
		records = append(records, &kgo.Record{Topic: o.Topic, Key: o.Key, Value: o.Value})
	}
	streamtest.Produce(w, w.kafka, records...)
	return c
}

// planned waits until so many chunks of c1 have been counted on a platform, each once, and returns the sum.
func (w *world) planned(p pb.Platform, chunks uint32) (planned int) {
	w.Helper()
	if chunks == 0 {
		return 0
	}
	seen := map[uint32]bool{}
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		for _, x := range batch(w, r.Value).Expanded {
			planned += int(x.Planned)
			if x.Partial {
				continue
			}
			if seen[x.Chunk] {
				w.Errorf("chunk %d of %s is counted twice", x.Chunk, p)
			}
			seen[x.Chunk] = true
		}
		return uint32(len(seen)) < chunks
	}, schemas.TopicResults(p))
	return planned
}

func batch(t testing.TB, value []byte) *pb.ResultBatch {
	t.Helper()
	b := &pb.ResultBatch{}
	if err := proto.Unmarshal(value, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// books checks that every chunk of a platform has been counted once, and that the deliveries are as many as counted, and
// as the devices.
func (w *world) books(p pb.Platform, chunks uint32, devices int) {
	w.Helper()
	w.planned(p, chunks)
	planned, counted := 0, map[uint32]int{}
	for _, r := range w.all(schemas.TopicResults(p)) {
		for _, x := range batch(w, r.Value).Expanded {
			planned += int(x.Planned)
			if x.Partial {
				continue
			}
			counted[x.Chunk]++
			if counted[x.Chunk] == 2 {
				w.Errorf("chunk %d of %s is counted twice", x.Chunk, p)
			}
		}
	}
	got := len(w.deliveries(p, pb.Class_CLASS_BULK))
	if len(counted) != int(chunks) || planned != devices || got != devices {
		w.Errorf("%s: %d of %d chunks counted, %d planned, %d deliveries, %d devices", p, len(counted), chunks, planned, got, devices)
	}
}

// all reads what is on a topic now.
func (w *world) all(topic string) (records []stream.ViewRecord) {
	w.Helper()
	v := stream.NewView(w.kafka, topic, func(r stream.ViewRecord) { records = append(records, r) })
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	select {
	case <-v.Ready():
	case <-ctx.Done():
		w.Fatalf("could not read %s", topic)
	}
	cancel()
	<-done
	return records
}

// deliveries reads a lane's topic, by device. Two for one device are an error.
func (w *world) deliveries(p pb.Platform, class pb.Class) map[string]*pb.Delivery {
	w.Helper()
	byDevice := map[string]*pb.Delivery{}
	for _, r := range w.all(schemas.TopicSend(p, class)) {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.Fatal(err)
		}
		if string(r.Key) != string(schemas.Key(d.App, d.Device)) {
			w.Errorf("device %s has the key %s", d.Device, r.Key)
		}
		if byDevice[d.Device] != nil {
			w.Errorf("two deliveries for device %s", d.Device)
		}
		byDevice[d.Device] = d
	}
	return byDevice
}

// dead reads dead letters and returns how many there are for each reason.
func (w *world) dead(topic string) map[string]int {
	w.Helper()
	reasons := map[string]int{}
	for _, r := range w.all(topic) {
		d := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.Fatal(err)
		}
		reasons[d.Reason]++
	}
	return reasons
}
