package fanout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// held is a destination that an operator has paused.
func held(name string) *pb.DestinationStatus {
	return stands(name, pb.DestinationState_DESTINATION_STATE_PAUSED, true, 5)
}

// browsers are web push devices of app shop: n at each origin, whose names begin with it.
func browsers(n int, origins ...string) (all []*pb.Device) {
	for _, o := range origins {
		for i := range n {
			d := &pb.Device{App: "shop", Id: fmt.Sprintf("%s %d", o, i), Platform: webpush, RegisteredAt: epoch.UnixMilli()}
			d.Target = &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: "https://" + o + "/x/" + fmt.Sprint(i)}}}
			all = append(all, d)
		}
	}
	return all
}

// voice is a lane that says the same each second until told otherwise, or silenced.
type voice struct {
	mu     sync.Mutex
	status *pb.LaneStatus
}

func (w *world) lane(p pb.Platform, destinations ...*pb.DestinationStatus) *voice {
	w.Helper()
	v := &voice{}
	v.says(bulk(p, 1000, destinations...))
	client := streamtest.Client(w, w.kafka)
	say := func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.status == nil {
			return
		}
		v.status.At = time.Now().UnixMilli()
		r := record(w, schemas.TopicLanes, schemas.Key(schemas.PlatformName(p), "bulk", "a"), v.status)
		r.Topic = w.kafka.Topic(r.Topic)
		if err := client.ProduceSync(w.Context(), r).FirstErr(); err != nil && w.Context().Err() == nil {
			w.Errorf("say: %v", err)
		}
	}
	say()
	streamtest.Run(w, func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				say()
			}
		}
	})
	return v
}

func (v *voice) says(s *pb.LaneStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status = s
}

// another launches a second campaign beside c1, to a list of devices.
func (w *world) another(id string, devices ...*pb.Device) {
	w.Helper()
	c := definition()
	c.Id, c.Epoch, c.CreatedAt = id, 2, time.Now().UnixMilli()
	c.Audience = &pb.Audience{}
	for _, d := range devices {
		c.Audience.Devices = append(c.Audience.Devices, d.Id)
	}
	run(c, time.Now())
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
	for i, chunk := range sliceList(c.Audience.Devices, 50) {
		chunk.App, chunk.Run, chunk.Platform, chunk.Index = c.App, c.Id, webpush, uint32(i)
		chunk.Total = uint32((len(devices) + 49) / 50)
		w.produce(schemas.TopicChunks(webpush), schemas.Key(c.App, c.Id, fmt.Sprint(i)), chunk)
	}
}

// arrive waits until n web push deliveries of a run are there, by the origin in their devices' names. One that is met twice is an error.
func (w *world) arrive(run string, n int) map[string]int {
	w.Helper()
	seen, of := map[string]bool{}, map[string]int{}
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.Fatal(err)
		}
		if d.Run != run {
			return true
		}
		if seen[d.Device] {
			w.Errorf("two deliveries of %s for device %s", run, d.Device)
		}
		seen[d.Device] = true
		origin, _, _ := strings.Cut(d.Device, " ")
		of[origin]++
		return len(seen) < n
	}, schemas.TopicSend(webpush, pb.Class_CLASS_BULK))
	return of
}

// now is what a run has on the web push lane's topic, by origin.
func (w *world) now(run string) map[string]int {
	w.Helper()
	of := map[string]int{}
	for _, r := range w.all(schemas.TopicSend(webpush, pb.Class_CLASS_BULK)) {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.Fatal(err)
		}
		if d.Run == run {
			origin, _, _ := strings.Cut(d.Device, " ")
			of[origin]++
		}
	}
	return of
}

// soon fails when what went before it took longer than anything takes that waits for nobody.
func soon(t *testing.T, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

const other = "push.example:8443"

// A campaign to everybody, while Mozilla takes nothing: what is Mozilla's waits, over a restart too, and what is the others' goes.
func TestWhatIsTheOthersGoesAndTheRestWaits(t *testing.T) {
	w := newWorld(t, browsers(200, chrome, mozilla, other)...)
	lane := w.lane(webpush, held(mozilla), opened(chrome))
	began := time.Now()
	w.launched(running, 256, webpush)
	stop := w.start("a")
	if of := w.arrive("c1", 400); of[mozilla] != 0 {
		t.Errorf("went to %v", of)
	}
	soon(t, began)
	stop()
	w.start("b")
	time.Sleep(2 * time.Second) // it has read what waits by then, and has nothing to do
	if of := w.now("c1"); of[mozilla] != 0 || of[chrome] != 200 || of[other] != 200 {
		t.Errorf("after a restart %v", of)
	}
	lane.says(bulk(webpush, 1000, opened(mozilla), opened(chrome)))
	began = time.Now()
	w.arrive("c1", 600)
	w.books(webpush, schemas.Shards/256, 600)
	soon(t, began)
}

// A rest is of those that the chunk was about: who has been met is not met again elsewhere, who comes later is not met, and who
// leaves is not missed.
func TestARestIsOfTheDevicesOfItsChunk(t *testing.T) {
	all := browsers(30, chrome, mozilla, other)
	w := newWorld(t, all...)
	lane := w.lane(webpush, held(mozilla), held("https://"+other), opened(chrome))
	w.launched(running, schemas.Shards, webpush)
	w.start("a")
	w.arrive("c1", 30)
	moves := func(d *pb.Device, origin string) *pb.Device {
		d = proto.CloneOf(d)
		d.Target.GetWebpush().Endpoint = "https://" + origin + "/moved"
		return d
	}
	late := browsers(31, mozilla)[30]
	registrytest.Put(t, w.registry, moves(all[0], mozilla), moves(all[30], chrome), late)
	lane.says(bulk(webpush, 1000, opened(mozilla), held("https://"+other), opened(chrome)))
	if of := w.arrive("c1", 60); of[other] != 0 || of[mozilla] != 30 {
		t.Errorf("went to %v", of)
	}
	lane.says(bulk(webpush, 1000, opened(mozilla), opened("https://"+other), opened(chrome)))
	w.arrive("c1", 90)
	w.books(webpush, 1, 90)
}

// Campaigns to a vendor that takes nothing stand before one to another vendor's devices. Mozilla is all that the lane lists.
func TestASickVendorsCampaignsHoldNoOthersUp(t *testing.T) {
	all := browsers(311, chrome, mozilla)
	w := newWorld(t, all...)
	w.lane(webpush, held(mozilla))
	w.start("a")
	for i := range 5 {
		w.another(fmt.Sprintf("sick%d", i), all[311:]...)
	}
	time.Sleep(time.Second)
	began := time.Now()
	w.another("well", all[:311]...)
	w.arrive("well", 311)
	soon(t, began)
	for i := range 5 {
		if of := w.now(fmt.Sprintf("sick%d", i)); len(of) != 0 {
			t.Errorf("campaign %d went to %v", i, of)
		}
	}
}

func TestCancelledRestsBecomeNothing(t *testing.T) {
	w := newWorld(t, browsers(200, chrome, mozilla)...)
	w.lane(webpush, held(mozilla))
	w.launched(running, 256, webpush)
	w.start("a")
	w.arrive("c1", 200)
	began := time.Now()
	w.ask(commands["cancel"])
	w.planned(webpush, schemas.Shards/256)
	soon(t, began)
	w.books(webpush, schemas.Shards/256, 200)
}

// A destination takes nothing of what it was given, and that may be those deliveries' own. Each run gives it a few of its own, which
// tell; those that a lane holds back for sure it does not.
func TestEachRunTastesWhatIsDoubtful(t *testing.T) {
	all := browsers(100, chrome, mozilla)
	w := newWorld(t, all...)
	lane := w.lane(webpush, sick(mozilla), held(chrome))
	w.start("a")
	for _, run := range []string{"one", "two"} {
		w.another(run, all...)
		if of := w.arrive(run, tasteOf); of[mozilla] != tasteOf {
			t.Errorf("%s tasted %v", run, of)
		}
	}
	time.Sleep(time.Second)
	for _, run := range []string{"one", "two"} {
		if of := w.now(run); of[mozilla] != tasteOf || of[chrome] != 0 {
			t.Errorf("%s went to %v", run, of)
		}
	}
	lane.says(bulk(webpush, 1000, opened(mozilla), opened(chrome)))
	w.arrive("one", 200)
	w.arrive("two", 200)
}

// Nobody speaks for the lane any more: what waits goes onto its topic.
func TestRestsOfALaneThatFellSilentGo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a lane's word counts for 10 s")
	}
	w := newWorld(t, browsers(50, chrome, mozilla)...)
	lane := w.lane(webpush, held(mozilla))
	w.launched(running, 256, webpush)
	w.start("a")
	w.arrive("c1", 50)
	lane.says(nil)
	w.arrive("c1", 100)
	w.books(webpush, schemas.Shards/256, 100)
}

// A lane's restart leaves it without a word of what it knew: what waits goes, and it finds out anew.
func TestRestsGoWhenTheLaneKnowsNothing(t *testing.T) {
	w := newWorld(t, browsers(50, chrome, mozilla)...)
	lane := w.lane(webpush, held(mozilla))
	w.launched(running, 256, webpush)
	w.start("a")
	w.arrive("c1", 50)
	lane.says(bulk(webpush, 0))
	w.arrive("c1", 100)
	w.books(webpush, schemas.Shards/256, 100)
}

// One app cannot be sent to at all. Its chunks are not even looked at, and another's go.
func TestAnAppThatCannotBeSentToHoldsNoOtherUp(t *testing.T) {
	var phones []*pb.Device
	for _, d := range slices.Concat(devices("shop", 3000), devices("blog", 300)) {
		if d.Platform == fcm {
			phones = append(phones, d)
		}
	}
	w := newWorld(t, phones...)
	w.lane(fcm, held("project"))
	w.launched(running, 64, fcm)
	w.start("a")
	blog := definition()
	blog.App = "blog"
	began := time.Now()
	w.launchedAs(blog, running, 64, fcm)
	w.planned(fcm, 64)
	soon(t, began)
	for _, r := range w.all(schemas.TopicSend(fcm, pb.Class_CLASS_BULK)) {
		if !strings.HasPrefix(string(r.Key), "blog/") {
			t.Fatalf("%s went", r.Key)
		}
	}
}

// A partition's queue is full of rests that cannot go. They make room for what lies behind them, and keep what they are.
func TestRestsMakeRoomForWhatLiesBehind(t *testing.T) {
	all := browsers(4*queuedChunks, chrome, mozilla)
	w := newWorld(t, all...)
	lane := w.lane(webpush, held(mozilla))
	c := definition()
	c.Epoch, c.CreatedAt = 2, time.Now().UnixMilli()
	run(c, time.Now())
	var records []*kgo.Record
	for i := range 2 * queuedChunks {
		chunk := &pb.Chunk{App: "shop", Run: "c1", Platform: webpush, Index: uint32(i), Total: 2 * queuedChunks, Estimate: 2}
		chunk.Devices = []string{all[i].Id, all[4*queuedChunks+i].Id} // Chrome's, Mozilla's
		records = append(records, record(t, schemas.TopicChunks(webpush), []byte("one partition"), chunk))
	}
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
	streamtest.Produce(t, w.kafka, records...)
	w.start("a")
	if of := w.arrive("c1", 2*queuedChunks); of[mozilla] != 0 {
		t.Errorf("went to %v", of)
	}
	written := 0 // each chunk and its rest, and then what was put back
	streamtest.Read(t, w.kafka, func(*kgo.Record) bool { written++; return written <= 4*queuedChunks }, schemas.TopicChunks(webpush))
	lane.says(bulk(webpush, 1000, opened(mozilla)))
	w.arrive("c1", 4*queuedChunks)
	w.books(webpush, 2*queuedChunks, 4*queuedChunks)
}

// Processes are killed and destinations fall ill and get well, all the time. Every device has its delivery once, and every chunk is
// counted once.
func TestKilledExpanderWritesEveryRestOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("a killed member's group waits 12 s for it")
	}
	server := miniredis.RunT(t)
	r, err := registry.OpenRedis(registry.RedisConfig{Addresses: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	w := &world{TB: t, kafka: streamtest.Kafka(t), redis: r, registry: registrytest.Registry(t, r, browsers(5000, chrome, mozilla, other)...)}
	lane := w.lane(webpush, held(mozilla))
	c := definition()
	c.Pace = &pb.Pace{PerSecond: crashPace}
	w.launchedAs(c, running, 16, webpush)
	words := []*pb.LaneStatus{
		bulk(webpush, 1000, held(mozilla), held("https://"+other)), bulk(webpush, 1000, opened(mozilla), held(chrome)),
		bulk(webpush, 1000, held(mozilla), opened(chrome)),
	}
	for kill := range 3 {
		lane.says(words[kill])
		before := w.counted()
		p := w.child(server.Addr())
		w.moreThan(before)
		if err := p.Process.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = p.Wait()
		if done := w.counted(); done <= before || len(w.deliveries(webpush, pb.Class_CLASS_BULK)) >= 15_000 {
			t.Fatalf("%d counts after the kill, %d before: it did not strike in the middle", done, before)
		}
	}
	w.start("child")
	w.lift(c)
	lane.says(bulk(webpush, 1000, opened(mozilla), opened(chrome)))
	w.books(webpush, 256, 15_000)
}
