package producer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const campaignBody = `{"name":"Winter sale","message":{"title":"Hello {{ attributes.first_name | \"you\" }}","ttl":"2h"},"audience":{"filter":"locale == \"fr-CA\""},"pace":{"per_second":500}}`

func TestCampaignIsCreatedLaunchedAndShown(t *testing.T) {
	a := start(t)
	a.launch("")
	got := a.call("POST", "/v1/campaigns", strings.Replace(campaignBody, `{"name"`, `{"id":"winter","launch":true,"name"`, 1))
	var c producer.Campaign
	got.read(t, &c)
	if got.status != http.StatusCreated || c.ID != "winter" || c.State != "running" || c.Command == "" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	c = producer.Campaign{}
	a.call("GET", "/v1/campaigns/winter", "").read(t, &c)
	if c.Message.TTL != "2h0m0s" || c.Audience.Filter == "" || c.Pace.PerSecond != 500 || c.Chunks["fcm"] != 2 {
		t.Errorf("got %+v", c)
	}
	var list producer.CampaignList
	a.call("GET", "/v1/campaigns?state=running", "").read(t, &list)
	if len(list.Campaigns) != 1 || list.Campaigns[0].Message != nil {
		t.Errorf("list: got %+v", list)
	}
	got = a.call("POST", "/v1/campaigns/winter/cancel", `{"reason":"wrong text"}`)
	c = producer.Campaign{}
	got.read(t, &c)
	if got.status != http.StatusOK || c.State != "cancelled" || c.Reason != "wrong text" {
		t.Errorf("cancel: got %d %s", got.status, got.body)
	}
	if p := a.call("GET", "/v1/campaigns/winter", "", "Authorization: Bearer "+newsKey).problem(t); p.Status != http.StatusNotFound {
		t.Errorf("another app's campaign: got %d", p.Status)
	}
	got = a.call("POST", "/v1/campaigns", strings.Replace(campaignBody, `{"name"`, `{"id":"winter","name"`, 1))
	if p := got.problem(t); p.Status != http.StatusConflict || p.Type != "urn:belfry:problem:refused" {
		t.Errorf("the id again: got %d %s", got.status, got.body)
	}
}

// A launch waits for the devices that were accepted before it, here by a registry that starts only later.
func TestALaunchMissesNoDeviceBeforeIt(t *testing.T) {
	a := start(t)
	if got := a.call("PUT", "/v1/devices/d-1", `{"apns":{"token":"`+token+`"}}`); got.status != http.StatusAccepted {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	devices := registry.New(a.redis)
	known := make(chan uint64, 1)
	streamtest.Run(t, stream.NewConsumer(a.kafka, stream.Options{
		Name: "audience", Topics: []string{schemas.TopicCommands},
		Handle: func(ctx context.Context, tasks []*stream.Task) {
			for _, task := range tasks {
				var c pb.Command
				if err := proto.Unmarshal(task.Value, &c); err != nil {
					t.Error(err)
				} else if c.GetLaunch() != nil {
					n, err := devices.CountDevices(ctx, "shop")
					if err != nil {
						t.Error(err)
					}
					known <- n[pb.Platform_PLATFORM_APNS]
				}
				task.Done()
			}
		},
	}).Run)
	time.AfterFunc(300*time.Millisecond, func() { streamtest.Run(t, registry.NewApplier(a.kafka, devices).Run) })
	a.call("POST", "/v1/campaigns", strings.Replace(campaignBody, `{"name"`, `{"id":"winter","launch":true,"name"`, 1))
	if n := <-known; n != 1 {
		t.Errorf("at the launch the registry knew %d of 1 devices", n)
	}
}

// A registry that stands still keeps no campaign from being launched, unless it must miss nobody.
func TestALaunchDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.launch("")
	if got := a.call("PUT", "/v1/devices/d-1", `{"apns":{"token":"`+token+`"}}`); got.status != http.StatusAccepted {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	got := a.call("POST", "/v1/campaigns", `{"id":"winter","launch":true,`+campaignBody[1:])
	var c producer.Campaign
	if got.read(t, &c); got.status != http.StatusCreated || c.State != "running" || !strings.Contains(c.Warning, "about 1 changes") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	launch := func() answer {
		return a.call("POST", "/v1/campaigns", `{"id":"summer","launch":true,"require_complete":true,`+campaignBody[1:], "Idempotency-Key: summer")
	}
	got = launch()
	if p := got.problem(t); p.Status != http.StatusConflict || !strings.HasSuffix(p.Type, ":incomplete") || !strings.Contains(p.Detail, "about 1 changes") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := a.call("GET", "/v1/campaigns/summer", ""); got.status != http.StatusNotFound {
		t.Errorf("refused, and yet: %d %s", got.status, got.body)
	}
	streamtest.Run(t, registry.NewApplier(a.kafka, registry.New(a.redis)).Run)
	got = launch()
	if c = (producer.Campaign{}); got.status != http.StatusCreated {
		t.Fatalf("once the registry is there: got %d %s", got.status, got.body)
	}
	if got.read(t, &c); c.State != "running" || c.Warning != "" {
		t.Errorf("got %s", got.body)
	}
}

func TestRequireCompleteGoesWithALaunch(t *testing.T) {
	a := start(t)
	a.launch("")
	a.call("POST", "/v1/campaigns", `{"id":"winter",`+campaignBody[1:])
	for path, body := range map[string]string{
		"/v1/campaigns":              `{"require_complete":true,` + campaignBody[1:],
		"/v1/campaigns/winter/pause": `{"require_complete":true}`,
	} {
		if p := a.call("POST", path, body).problem(t); p.Status != http.StatusUnprocessableEntity || p.Errors[0].Field != "require_complete" {
			t.Errorf("%s: got %d %+v", path, p.Status, p)
		}
	}
	if got := a.call("POST", "/v1/campaigns/winter/launch", `{"require_complete":true}`); got.status != http.StatusOK {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestRefusedActionSaysWhy(t *testing.T) {
	a := start(t)
	a.launch("it is finished")
	a.call("POST", "/v1/campaigns", strings.Replace(campaignBody, `{"name"`, `{"id":"winter","name"`, 1))
	p := a.call("POST", "/v1/campaigns/winter/launch", "").problem(t)
	if p.Status != http.StatusConflict || p.Detail != "it is finished" {
		t.Errorf("got %d %s", p.Status, p.Detail)
	}
	if p := a.call("POST", "/v1/campaigns/summer/launch", "").problem(t); p.Status != http.StatusNotFound {
		t.Errorf("an unknown campaign: got %d", p.Status)
	}
}

// TestUndecidedActionIsAccepted has no launcher: the command is on Kafka, and nobody decides it.
func TestUndecidedActionIsAccepted(t *testing.T) {
	t.Parallel()
	a := start(t)
	got := a.call("POST", "/v1/campaigns", campaignBody, "Idempotency-Key: k")
	var c producer.Campaign
	got.read(t, &c)
	if got.status != http.StatusAccepted || c.ID == "" || c.Command == "" || c.State != "" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	// Once there is a launcher, the same call tells what it decided.
	a.launch("")
	got = a.call("POST", "/v1/campaigns", campaignBody, "Idempotency-Key: k")
	var later producer.Campaign
	got.read(t, &later)
	if got.status != http.StatusCreated || later.ID != c.ID || later.Command != c.Command {
		t.Errorf("asked again: got %d %s", got.status, got.body)
	}
}

func TestCampaignFaultsNameTheirFields(t *testing.T) {
	a := start(t)
	body := func(message, audience, more string) string {
		return fmt.Sprintf(`{"message":%s,"audience":%s%s}`, message, audience, more)
	}
	const message, everyone = `{"title":"hi"}`, `{"everyone":true}`
	for body, field := range map[string]string{
		body(`{}`, everyone, ""):                                               "message.title",
		body(`{"title":"{{ attributes. }}"}`, everyone, ""):                    "message.title",
		body(`{"title":"{{ data.code }}"}`, everyone, ""):                      "message.title",
		body(`{"title":"hi","ttl":"300h"}`, everyone, ""):                      "message.ttl",
		body(`{"title":"hi","apns":{"priority":7}}`, everyone, ""):             "message.apns.priority",
		body(`{"title":"hi","apns":{"priorty":5}}`, everyone, ""):              "message.apns.priorty",
		body(message, `{}`, ""):                                                "audience",
		body(message, `{"everyone":true,"users":["ada"]}`, ""):                 "audience",
		body(message, `{"filter":"locale =="}`, ""):                            "audience.filter",
		body(message, `{"filter":"shoe_size > 3"}`, ""):                        "audience.filter",
		body(message, `{"devices":["d-1","a/b"]}`, ""):                         "audience.devices[1]",
		body(message, `{"users":["u"`+strings.Repeat(`,"u"`, 10_000)+`]}`, ""): "audience.users",
		body(message, `{"everyone":true,"platforms":["pager"]}`, ""):           "audience.platforms[0]",
		body(message, everyone, `,"start_at":"2026-12-24T12:00:00Z"`):          "start_at",
		body(message, everyone, `,"start_at":"2026-11-23T12:00:00Z"`):          "start_at",
		body(message, everyone, `,"start_at":"soon"`):                          "start_at",
		body(message, everyone, `,"pace":{"per_second":0}`):                    "pace.per_second",
		body(message, everyone, `,"weight":101`):                               "weight",
		body(message, everyone, `,"id":"a/b"`):                                 "id",
		`{"message":{"title":"hi"}}`:                                           "audience",
	} {
		p := a.call("POST", "/v1/campaigns", body).problem(t)
		if p.Status != http.StatusUnprocessableEntity || len(p.Errors) == 0 || (p.Errors[0].Field != field &&
			// What is missing altogether, huma finds in the object that lacks it.
			!(p.Errors[0].Field == "" && strings.Contains(p.Errors[0].Text, field))) {
			t.Errorf("%.90s:\ngot %d %v, want a fault in %q", body, p.Status, p.Errors, field)
		}
	}
	a.none(schemas.TopicCommands)
}

// account writes what the ledger would.
func (a *api) account(change *pb.Account) {
	a.t.Helper()
	value, err := proto.Marshal(change)
	if err != nil {
		a.t.Fatal(err)
	}
	streamtest.Produce(a.t, a.kafka, &kgo.Record{
		Topic: schemas.TopicAccounts, Key: schemas.Key(change.App, change.Run, schemas.PlatformName(change.Platform)), Value: value,
	})
}

func TestProgressIsFollowedToTheEnd(t *testing.T) {
	a := start(t)
	a.launch("")
	a.call("POST", "/v1/campaigns", strings.Replace(campaignBody, `{"name"`, `{"id":"winter","launch":true,"name"`, 1))
	r, err := http.NewRequestWithContext(t.Context(), "GET", a.url+"/v1/campaigns/winter/progress", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+readKey)
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("got %s", got)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() (event string, p producer.Progress) {
		for lines.Scan() && lines.Text() != "" {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && event == "progress" {
				if err := json.Unmarshal([]byte(data), &p); err != nil {
					t.Fatal(err)
				}
			} else if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				event = name
			}
		}
		return event, p
	}
	if event, p := next(); event != "progress" || p.State != "running" || p.Chunks != 2 || p.Planned != 0 {
		t.Fatalf("at first: got %s %+v", event, p)
	}
	books := &pb.Account{
		App: "shop", Run: "winter", Platform: pb.Platform_PLATFORM_FCM, Planned: 100, Accepted: 60, Unregistered: 1,
		ChunksExpanded: 2, ChunksTotal: 2, Codes: map[string]uint64{"UNREGISTERED": 1},
	}
	a.account(books)
	if event, p := next(); event != "progress" || p.Planned != 100 || p.Accepted != 60 || p.Pending != 39 || p.Platforms["fcm"].Codes["UNREGISTERED"] != 1 {
		t.Fatalf("then: got %s %+v", event, p)
	}
	books.Cancelled = 39
	a.account(books)
	a.call("POST", "/v1/campaigns/winter/cancel", "")
	for {
		event, p := next()
		if event == "end" {
			break
		}
		if event != "progress" || p.Planned != p.Accepted+p.Unregistered+p.Cancelled+p.Pending {
			t.Fatalf("later: got %q %+v", event, p)
		}
	}
	var p producer.Progress
	a.call("GET", "/v1/campaigns/winter/progress", "").read(t, &p)
	if p.State != "cancelled" || p.Pending != 0 || p.Cancelled != 39 {
		t.Errorf("at the end: got %+v", p)
	}
}

func TestListsComeInPages(t *testing.T) {
	a := start(t)
	var records []*kgo.Record
	for i := range 5 {
		c := &pb.Campaign{App: "shop", Id: fmt.Sprintf("c%d", i), CreatedAt: int64(1000 + i), State: pb.CampaignState_CAMPAIGN_STATE_DRAFT}
		value, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("shop", c.Id), Value: value})
	}
	streamtest.Produce(t, a.kafka, records...)
	a.call("GET", "/v1/campaigns/none", "") // a miss reads the view to its end
	var got []string
	for after := ""; ; {
		var page producer.CampaignList
		a.call("GET", "/v1/campaigns?limit=2&after="+after, "").read(t, &page)
		for _, c := range page.Campaigns {
			got = append(got, c.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if strings.Join(got, " ") != "c4 c3 c2 c1 c0" {
		t.Errorf("got %v", got)
	}
}
