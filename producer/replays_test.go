package producer_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/replay"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// bury puts dead letters on FCM's topic: n of a campaign, and one that cannot be read.
func (a *api) bury(app, run string, n int) {
	a.t.Helper()
	var records []*kgo.Record
	for i := range n {
		device := fmt.Sprint("d-", i)
		id := schemas.DeliveryID(app, run, device, 0)
		value, err := proto.Marshal(&pb.DeadLetter{
			Reason: "exhausted", Code: "503", Attempts: 8, LastAt: now.UnixMilli(), FirstAt: now.UnixMilli() - 1000,
			Source: &pb.Source{Topic: "send.fcm.bulk", Partition: 1, Offset: 7},
			Delivery: &pb.Delivery{
				Id: id[:], App: app, Run: run, Device: device, Class: pb.Class_CLASS_BULK, ExpiresAt: now.Add(1e15).UnixMilli(),
				Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "secret"}}}, Variables: map[string]string{"v": "secret"},
			},
		})
		if err != nil {
			a.t.Fatal(err)
		}
		records = append(records, &kgo.Record{Topic: schemas.TopicDead(pb.Platform_PLATFORM_FCM), Key: schemas.DeviceKey(app, device), Value: value})
	}
	raw, err := proto.Marshal(&pb.DeadLetter{Reason: "undecodable", Raw: []byte("secret"), LastAt: now.UnixMilli()})
	if err != nil {
		a.t.Fatal(err)
	}
	records = append(records, &kgo.Record{Topic: schemas.TopicDeadOf(schemas.TopicEvents), Key: schemas.Key(app, "ada"), Value: raw})
	streamtest.Produce(a.t, a.kafka, records...)
}

func (a *api) deadStats(query string) (h producer.Histogram) {
	a.t.Helper()
	a.call("GET", "/v1/dead/stats"+query, "").read(a.t, &h)
	return h
}

func TestDeadLettersAreShownToTheirAppWithoutSecrets(t *testing.T) {
	a := start(t)
	a.bury("shop", "sale", 25)
	a.bury("news", "letter", 3)

	seen := map[string]producer.DeadLetter{}
	pages := 0
	for after := ""; pages == 0 || after != ""; pages++ {
		var page producer.DeadList
		a.call("GET", "/v1/dead?limit=10&after="+url.QueryEscape(after), "").read(t, &page)
		for _, l := range page.Letters {
			seen[fmt.Sprint(l.Topic, l.Partition, l.Offset)] = l
		}
		after = page.Next
	}
	if len(seen) != 26 || pages < 3 {
		t.Errorf("%d letters on %d pages", len(seen), pages)
	}
	var one producer.DeadLetter
	for _, l := range seen {
		if l.Platform == "fcm" {
			one = l
		}
	}
	path := fmt.Sprintf("/v1/dead/%s/%d/%d", one.Topic, one.Partition, one.Offset)
	got := a.call("GET", path, "")
	if got.status != 200 || one.Campaign != "sale" || one.Code != "503" || one.Replayed || one.Source != "send.fcm.bulk:1:7" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if all := a.call("GET", "/v1/dead?limit=1000", "").body; len(all) < 1000 || strings.Contains(all+got.body, "secret") {
		t.Errorf("a token or a payload is shown: %s", all)
	}
	if n := a.call("GET", path, "", "Authorization: Bearer "+newsKey); n.status != 404 {
		t.Errorf("another app's key: %d %s", n.status, n.body)
	}
	for _, path := range []string{"/v1/dead/dead.fcm/0/999999", "/v1/dead/dead.nothing/0/0"} {
		if n := a.call("GET", path, ""); n.status != 404 {
			t.Errorf("%s: %d %s", path, n.status, n.body)
		}
	}
	if h := a.deadStats(""); h.Count != 26 || h.Send != 25 || h.Unreadable != 1 || len(h.Bars) != 2 || !h.Complete || h.Bars[0].Campaign != "sale" {
		t.Errorf("histogram %+v", h)
	}
	if h := a.deadStats("?platform=fcm&code=503&campaign=other,sale&reason=5xx"); h.Count != 25 {
		t.Errorf("filtered: %+v", h)
	}
	if h := a.deadStats("?platform=webpush"); h.Count != 0 || len(h.Bars) != 0 {
		t.Errorf("filtered: %+v", h)
	}
}

// I11: a dry run writes nothing, and says what a replay then does.
func TestReplaysFromTheAPI(t *testing.T) {
	a := start(t)
	a.bury("shop", "sale", 25)
	client := streamtest.Client(t, a.kafka)
	where := func() (n int64) {
		for _, topic := range schemas.Plan() {
			n += ends(t, client, a.kafka.Topic(topic.Name))
		}
		return n
	}
	before := where()
	var created producer.ReplayCreated
	a.call("POST", "/v1/replays", `{"platforms":["fcm"],"dry_run":true}`).read(t, &created)
	if created.Replay != nil || created.DryRun.Send != 25 || where() != before {
		t.Errorf("dry run: %+v, %d records were written", created.DryRun, where()-before)
	}

	got := a.call("POST", "/v1/replays", `{"platforms":["fcm"],"campaigns":["sale"],"rate":1000}`, "Idempotency-Key: k1")
	got.read(t, &created)
	if got.status != 202 || created.Replay.State != "planned" || created.Replay.CreatedBy != "all" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	id := "/v1/replays/" + created.Replay.ID
	var r producer.Replay
	a.call("POST", id+"/pause", "").read(t, &r)
	if r.State != "paused" || r.ChangedBy != "all" {
		t.Errorf("paused: %+v", r)
	}
	streamtest.Run(t, replay.New(a.kafka).Run)
	a.call("POST", id+"/resume", "").read(t, &r)
	for r.State != "finished" {
		if t.Context().Err() != nil || r.State == "failed" {
			t.Fatalf("%+v", r)
		}
		a.call("GET", id, "").read(t, &r)
	}
	if r.Sent != 25 || r.Progress["fcm"].Sent != 25 || len(r.Progress) != 1 || r.Campaigns[0] != "sale" {
		t.Errorf("finished: %+v", r)
	}
	if p := a.call("POST", id+"/cancel", "").problem(t); p.Status != 409 {
		t.Errorf("cancel of one that has ended: %+v", p)
	}
	var list struct{ Replays []producer.Replay }
	a.call("GET", "/v1/replays", "").read(t, &list)
	if len(list.Replays) != 1 || list.Replays[0].ID != r.ID {
		t.Errorf("listed: %+v", list)
	}
	a.call("GET", "/v1/replays", "", "Authorization: Bearer "+newsKey).read(t, &list)
	if len(list.Replays) != 0 {
		t.Errorf("another app's key: %+v", list)
	}
	for h := a.deadStats("?platform=fcm"); h.Replayed != 25 || h.Send != 0; h = a.deadStats("?platform=fcm") {
		if t.Context().Err() != nil {
			t.Fatalf("after it: %+v", h)
		}
	}
	if topics := letters.DeadTopics(); len(topics) != 6 {
		t.Errorf("topics of dead letters: %v", topics)
	}
}

func TestReplaysThatAreRefused(t *testing.T) {
	a := start(t)
	for body, field := range map[string]string{
		`{"source":"send"}`: "since",
		`{"source":"send","since":"2026-01-01T00:00:00Z"}`:                        "since",
		`{"source":"send","since":"2026-11-24T09:00:00Z","reasons":["accepted"]}`: "include_accepted",
		`{"include_accepted":true}`:                                               "include_accepted",
		`{"offsets":["dead.fcm:0"]}`:                                              "offsets[0]",
		`{"since":"2026-11-24T09:00:00Z","until":"2026-11-24T08:00:00Z"}`:         "until",

		`{"rate":1000000}`:         "rate",
		`{"platforms":["pigeon"]}`: "platforms[0]",
		`{"campaign":"typo"}`:      "campaign",
	} {
		if p := a.call("POST", "/v1/replays", body).problem(t); p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Field != field {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if got := a.call("POST", "/v1/replays", `{}`, "Authorization: Bearer "+readKey); got.status != 403 {
		t.Errorf("a key to read: %d", got.status)
	}
	a.none(schemas.TopicControl, schemas.TopicReplays(pb.Platform_PLATFORM_FCM))
}
