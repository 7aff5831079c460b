package fanout

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

const (
	running   = pb.CampaignState_CAMPAIGN_STATE_RUNNING
	paused    = pb.CampaignState_CAMPAIGN_STATE_PAUSED
	cancelled = pb.CampaignState_CAMPAIGN_STATE_CANCELLED
	finished  = pb.CampaignState_CAMPAIGN_STATE_FINISHED
)

func TestCampaignGoesToEveryDeviceOnce(t *testing.T) {
	w := newWorld(t, append(devices("shop", 3000), devices("other", 300)...)...)
	w.start("a")
	launch := proto.CloneOf(commands["launch"])
	launch.Id = "launch"
	w.ask(created(definition()), launch, launch, commands["launch"], commands["launch"])
	c := w.campaign(func(c *pb.Campaign) bool { return len(c.Decisions) == 4 })
	for _, p := range schemas.Platforms {
		chunks := c.Chunks[schemas.PlatformName(p)]
		if n := len(w.all(schemas.TopicChunks(p))); n != int(chunks) || chunks == 0 {
			t.Errorf("%d chunks on %s, %d in the campaign", n, p, chunks)
		}
		if planned := w.planned(p, chunks); planned != 1000 {
			t.Errorf("%d planned on %s", planned, p)
		}
		got := w.deliveries(p, pb.Class_CLASS_BULK)
		if len(got) != 1000 {
			t.Errorf("%d deliveries on %s", len(got), p)
		}
	}
	d := w.deliveries(fcm, pb.Class_CLASS_BULK)["d000001"]
	id := schemas.DeliveryID("shop", "c1", "d000001", 0)
	want := &pb.Delivery{
		Id: id[:], App: "shop", Run: "c1", Device: "d000001", Class: pb.Class_CLASS_BULK, Target: device("shop", 1).Target,
		Locale: "fr-CA", Variables: map[string]string{"user": "u0"}, CreatedAt: d.GetCreatedAt(),
		ExpiresAt: c.ExpiresAt, RegisteredAt: epoch.UnixMilli(),
	}
	if !proto.Equal(d, want) {
		t.Errorf("got  %v\nwant %v", d, want)
	}
	w.ask(settles(apns), settles(fcm), settles(apns), settles(webpush))
	w.campaign(is(finished))
}

func TestAudienceOfListedDevicesAndUsers(t *testing.T) {
	for name, audience := range map[string]*pb.Audience{
		"devices": {Devices: []string{"d000001", "d000002", "d000004", "d000001", "nobody"}, Platforms: []pb.Platform{fcm}},
		"users":   {Users: []string{"u0", "u0", "nobody"}, Platforms: []pb.Platform{fcm}},
		"filter":  {Filter: `user == "u0"`, Platforms: []pb.Platform{fcm}},
	} {
		want := map[string][]string{
			"devices": {"d000001", "d000004"},
			"users":   {"d000001", "d000004", "d000007"},
			"filter":  {"d000001", "d000004", "d000007"},
		}[name]
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, devices("shop", 30)...)
			w.start("a")
			d := definition()
			d.Audience = audience
			w.ask(created(d), commands["launch"])
			c := w.campaign(is(running))
			if len(c.Chunks) != 1 || !slices.Equal(c.Settled, []pb.Platform{apns, webpush}) {
				t.Errorf("chunks %v, settled %v", c.Chunks, c.Settled)
			}
			w.planned(fcm, c.Chunks["fcm"])
			if got := slices.Sorted(maps.Keys(w.deliveries(fcm, pb.Class_CLASS_BULK))); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestCampaignWithoutDevicesFinishesAtOnce(t *testing.T) {
	w := newWorld(t, devices("other", 3)...)
	w.start("a")
	w.ask(created(definition()), commands["launch"])
	if c := w.campaign(is(finished)); c.Reason == "" || len(c.Settled) != 3 || c.EndedAt == 0 {
		t.Errorf("got %v", c)
	}
}

// A draft that nobody launches would lie in the memory of every process for good, with its lists.
func TestAForgottenDraftIsGivenUp(t *testing.T) {
	w := newWorld(t, devices("shop", 3)...)
	c := definition()
	c.State, c.Audience = pb.CampaignState_CAMPAIGN_STATE_DRAFT, &pb.Audience{Devices: []string{"d000001"}}
	c.CreatedAt = time.Now().Add(-schemas.MaxCampaign).UnixMilli()
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
	young := definition()
	young.Id, young.State, young.CreatedAt = "c2", pb.CampaignState_CAMPAIGN_STATE_DRAFT, time.Now().Add(time.Hour-schemas.MaxCampaign).UnixMilli()
	w.produce(schemas.TopicCampaigns, schemas.Key(young.App, young.Id), young)
	w.start("a")
	got := w.campaign(is(cancelled))
	if got.Id != "c1" || !strings.Contains(got.Reason, "28 days") || len(got.Audience.Devices) > 0 {
		t.Errorf("got %v", got)
	}
	if n := len(w.all(schemas.TopicCommands)); n != 1 {
		t.Errorf("%d commands, want the one to cancel", n)
	}
}

func TestPausedChunksWaitAndCancelledOnesBecomeNothing(t *testing.T) {
	w := newWorld(t, devices("shop", 300)...)
	w.launched(paused, 64, apns)
	w.start("a")
	w.ask(commands["resume"], commands["pause"])
	w.campaign(func(c *pb.Campaign) bool { return len(c.Decisions) == 2 })
	// How far it got between the two is the scheduler's luck. Cancelled now, it gets no further.
	w.ask(commands["cancel"])
	w.campaign(is(cancelled))
	planned := w.planned(apns, 64)
	if got := len(w.deliveries(apns, pb.Class_CLASS_BULK)); got != planned {
		t.Errorf("%d deliveries, %d counted", got, planned)
	}
	w.ask(settles(apns), settles(fcm), settles(webpush))
	if c := w.campaign(func(c *pb.Campaign) bool { return len(c.Settled) == 3 }); c.State != cancelled {
		t.Errorf("the cancelled campaign is %s", c.State)
	}
}

func TestPausedCampaignExpandsWhenResumed(t *testing.T) {
	w := newWorld(t, devices("shop", 300)...)
	w.launched(paused, 64, apns)
	w.start("a")
	// Behind them on every partition lies a run of which there is no campaign: when those are counted, the paused chunks
	// have been met, and left.
	for i := range 64 {
		c := &pb.Chunk{App: "shop", Run: "gone", Platform: apns, Index: uint32(100 + i), Total: 64}
		w.produce(schemas.TopicChunks(apns), chunkKey(i), c)
	}
	if n := w.planned(apns, 64); n != 0 || len(w.deliveries(apns, pb.Class_CLASS_BULK)) != 0 {
		t.Errorf("%d deliveries of a paused campaign", n)
	}
	w.ask(commands["resume"])
	if n := w.planned(apns, 128); n != 100 {
		t.Errorf("%d planned after the resumption", n)
	}
}

func TestExpiredCampaignsChunksBecomeNothing(t *testing.T) {
	w := newWorld(t, devices("shop", 300)...)
	c := w.launched(paused, 64, apns)
	c.ExpiresAt = time.Now().UnixMilli()
	w.produce(schemas.TopicCampaigns, schemas.Key(c.App, c.Id), c)
	w.start("a")
	if planned := w.planned(apns, 64); planned != 0 || len(w.deliveries(apns, pb.Class_CLASS_BULK)) != 0 {
		t.Errorf("%d planned", planned)
	}
	w.ask(settles(apns))
	w.campaign(is(pb.CampaignState_CAMPAIGN_STATE_EXPIRED))
}

func TestScheduledCampaignStartsOnce(t *testing.T) {
	w := newWorld(t, devices("shop", 30)...)
	w.start("a")
	w.start("b")
	d := definition()
	d.StartAt = time.Now().Add(8 * time.Second).UnixMilli()
	w.ask(created(d), commands["launch"])
	w.campaign(is(pb.CampaignState_CAMPAIGN_STATE_SCHEDULED))
	c := w.campaign(is(running))
	if c.LaunchedAt < d.StartAt {
		t.Errorf("started %d ms early", d.StartAt-c.LaunchedAt)
	}
	if n := w.planned(apns, c.Chunks["apns"]); n != 10 {
		t.Errorf("%d planned", n)
	}
	// Both instances have seen it run by the time that a later command is answered, and none starts it again.
	w.ask(commands["pause"])
	w.campaign(is(paused))
	if n := len(w.all(schemas.TopicChunks(apns))); n != int(c.Chunks["apns"]) {
		t.Errorf("%d chunks", n)
	}
}

func TestLaunchWaitsForTheRegistry(t *testing.T) {
	w := newWorld(t, devices("shop", 30)...)
	if err := w.redis.Del(t.Context(), w.redis.Prefix+"{registry}:built").Err(); err != nil {
		t.Fatal(err)
	}
	w.start("a")
	w.ask(created(definition()), commands["launch"])
	w.campaign(is(pb.CampaignState_CAMPAIGN_STATE_DRAFT))
	registrytest.Registry(t, w.redis)
	if c := w.campaign(is(running)); w.planned(apns, c.Chunks["apns"]) != 10 {
		t.Error("not everybody is reached")
	}
}

func TestUnreadableRecordsAreDeadOnceAndTheRestGoesOn(t *testing.T) {
	w := newWorld(t, devices("shop", 30)...)
	garbage := func(topic, key string) *kgo.Record {
		return &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte("\xff\xff")}
	}
	streamtest.Produce(t, w.kafka, garbage(schemas.TopicCommands, "shop/c1"), garbage(schemas.TopicChunks(apns), "one partition"))
	stop := w.start("a")
	lost := &pb.Command{Id: "x", App: "shop", Campaign: "c2", Kind: commands["pause"].Kind}
	w.produce(schemas.TopicCommands, schemas.Key("shop", "c2"), lost)
	w.produce(schemas.TopicCommands, schemas.Key("shop", "c1"), lost) // on another campaign's key
	w.ask(created(definition()), commands["launch"])
	c := w.campaign(is(running))
	w.planned(apns, c.Chunks["apns"])

	unknown := &pb.Chunk{App: "shop", Run: "gone", Platform: apns, Index: 90, Total: 91, EndShard: 10}
	beyond := &pb.Chunk{App: "shop", Run: "c1", Platform: apns, Index: 91, EndShard: schemas.Shards + 1}
	last := &pb.Chunk{App: "shop", Run: "c1", Platform: apns, Index: 92, Devices: []string{"nobody"}}
	for _, chunk := range []*pb.Chunk{unknown, beyond, last} {
		w.produce(schemas.TopicChunks(apns), []byte("one partition"), chunk)
	}
	w.planned(apns, c.Chunks["apns"]+2)
	letters := 3 // of commands, on partitions of their own
	streamtest.Read(t, w.kafka, func(*kgo.Record) bool { letters--; return letters > 0 }, schemas.TopicDeadOf(schemas.TopicCommands))
	stop()
	w.start("a")
	w.ask(commands["pause"])
	w.campaign(is(paused))
	if got := w.dead(schemas.TopicDeadOf(schemas.TopicCommands)); got["undecodable"] != 2 || got["refused"] != 1 {
		t.Errorf("dead commands: %v", got)
	}
	if got := w.dead(schemas.TopicDead(apns)); got["unknown-run"] != 1 || got["undecodable"] != 2 {
		t.Errorf("dead chunks: %v", got)
	}
}

func chunkKey(i int) []byte { return []byte(strings.Repeat("k", i)) }

// TestAStartEndsWhatItsPredecessorHadBegun: a launcher that was killed in a transaction keeps everybody from reading the campaigns to
// their end, its successor too, which is who can end that. It comes long before Kafka does.
func TestAStartEndsWhatItsPredecessorHadBegun(t *testing.T) {
	w := newWorld(t, devices("shop", 30)...)
	killed := streamtest.Client(t, w.kafka,
		kgo.TransactionalID(w.kafka.Prefix+"fanout.launcher.a"), kgo.TransactionTimeout(10*time.Minute))
	if err := killed.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	undone := &kgo.Record{Topic: w.kafka.Topic(schemas.TopicCampaigns), Key: schemas.Key("shop", "undone"), Value: []byte("never")}
	if err := killed.ProduceSync(t.Context(), undone).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.start("a")
	w.ask(created(definition()), commands["launch"])
	w.campaign(is(running))
}
