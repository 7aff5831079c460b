package producer_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

const asOperator = "Authorization: Bearer " + operatorKey

// restraint reads the newest record of a name.
func (a *api) restraint(name control.Name) *pb.Restraint {
	a.t.Helper()
	v := control.NewView(a.kafka)
	streamtest.Run(a.t, v.Run)
	<-v.Ready()
	return v.Get(name)
}

func TestRestraintIsPutShownAndLifted(t *testing.T) {
	a := start(t)
	for path, name := range map[string]control.Name{
		"/v1/control/lanes/webpush/bulk": "lane/webpush/bulk",
		"/v1/control/apps/shop":          "app/shop",

		"/v1/control/destinations/webpush/shop/https:%2F%2Fpush.example:444": "destination/webpush/shop/https://push.example:444",

		"/v1/control/hygiene/apns/shop": "hygiene/apns/shop",
	} {
		var r producer.Restraint
		got := a.call("PUT", path, `{"paused":true,"reason":"wrong link"}`, asOperator)
		got.read(t, &r)
		if got.status != http.StatusOK || r.Name != string(name) || !r.Paused || r.By != "ops" || !r.At.Equal(now) {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
		if r := a.restraint(name); !r.GetPaused() || r.GetReason() != "wrong link" || r.GetBy() != "ops" || r.GetAt() != now.UnixMilli() {
			t.Errorf("%s: on Kafka lies %v", path, r)
		}
		if got := a.call("DELETE", path, "", asOperator); got.status != http.StatusNoContent {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
		if r := a.restraint(name); r != nil {
			t.Errorf("%s: after it was lifted: %v", path, r)
		}
	}
}

func TestRestraintsAreTheAppsOrTheOperators(t *testing.T) {
	a := start(t)
	a.call("PUT", "/v1/control/lanes/apns/bulk", `{"per_second":100}`, asOperator)
	a.call("PUT", "/v1/control/apps/shop", `{"per_second":5}`)
	a.call("PUT", "/v1/control/apps/news", `{"paused":true}`, "Authorization: Bearer "+newsKey)
	for what, tt := range map[string]struct {
		method, path, body, key string
		status                  int
	}{
		"another app":           {"PUT", "/v1/control/apps/news", `{"paused":true}`, allKey, 403},
		"another app's":         {"DELETE", "/v1/control/destinations/fcm/news/x", "", allKey, 403},
		"a lane":                {"PUT", "/v1/control/lanes/apns/bulk", `{"paused":true}`, allKey, 403},
		"without the scope":     {"PUT", "/v1/control/apps/shop", `{"paused":true}`, readKey, 403},
		"no such app":           {"PUT", "/v1/control/apps/nobody", `{"paused":true}`, operatorKey, 404},
		"no such lane":          {"PUT", "/v1/control/lanes/sms/bulk", `{"paused":true}`, operatorKey, 422},
		"nothing":               {"PUT", "/v1/control/apps/shop", `{}`, allKey, 422},
		"less than nothing":     {"PUT", "/v1/control/apps/shop", `{"per_second":-1}`, allKey, 422},
		"a rate of hygiene":     {"PUT", "/v1/control/hygiene/apns/shop", `{"per_second":1}`, allKey, 422},
		"an operator's devices": {"GET", "/v1/devices/d-1", "", operatorKey, 403},
	} {
		if p := a.call(tt.method, tt.path, tt.body, "Authorization: Bearer "+tt.key).problem(t); p.Status != tt.status {
			t.Errorf("%s: got %d %s", what, p.Status, p.Detail)
		}
	}
	lists := map[string][]string{
		allKey:      {"app/shop", "lane/apns/bulk"},
		newsKey:     {"app/news", "lane/apns/bulk"},
		operatorKey: {"app/news", "app/shop", "lane/apns/bulk"},
	}
	for key, want := range lists {
		// The view is a moment behind.
		for names := []string(nil); len(names) != len(want); {
			names = nil
			var list producer.RestraintList
			a.call("GET", "/v1/control", "", "Authorization: Bearer "+key).read(t, &list)
			for _, r := range list.Restraints {
				names = append(names, r.Name)
			}
			if len(names) == len(want) && !slices.Equal(names, want) {
				t.Fatalf("got %v, want %v", names, want)
			}
		}
	}
}

func TestLanesAreAddedUp(t *testing.T) {
	a := start(t)
	says := func(instance string, s *pb.LaneStatus) {
		s.Platform, s.Class, s.Instance = pb.Platform_PLATFORM_FCM, pb.Class_CLASS_BULK, instance
		value, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		streamtest.Produce(t, a.kafka, &kgo.Record{Topic: schemas.TopicLanes, Key: schemas.Key("fcm", "bulk", instance), Value: value})
	}
	says("a", &pb.LaneStatus{
		At: now.UnixMilli(), Backlog: 7, DrainRate: 2.5, InFlight: 3, OldestMs: 1500,
		Destinations: []*pb.DestinationStatus{{
			App: "shop", Name: "p", State: pb.DestinationState_DESTINATION_STATE_OPEN, Limit: 10,
			LatencyMs: 6000, Failing: 0.25, FailingCode: "503", PerMinute: 400, PerMinuteSince: now.UnixMilli(), Queued: 16,
		}},
	})
	says("b", &pb.LaneStatus{
		At: now.UnixMilli(), Backlog: 5, DrainRate: 1, OldestMs: 500,
		Destinations: []*pb.DestinationStatus{
			{
				App: "shop", Name: "p", State: pb.DestinationState_DESTINATION_STATE_WAITING, Reason: "429", Until: now.UnixMilli(), Limit: 2, Parked: 4,
				Since: now.UnixMilli(), PerMinute: 200, Failing: 0.01, FailingCode: "500",
			},
			{App: "news", Name: "q", State: pb.DestinationState_DESTINATION_STATE_BLOCKED},
		},
	})
	var fcm producer.Lane
	for fcm.Instances < 2 {
		var list producer.LaneList
		a.call("GET", "/v1/lanes", "").read(t, &list)
		if len(list.Lanes) != 6 {
			t.Fatalf("%d lanes", len(list.Lanes))
		}
		for _, l := range list.Lanes {
			if l.Lane == "fcm/bulk" {
				fcm = l
			}
		}
	}
	if *fcm.Backlog != 12 || fcm.DrainRate != 3.5 || fcm.InFlight != 3 || *fcm.OldestSeconds != 1.5 {
		t.Errorf("got %+v", fcm)
	}
	if len(fcm.Destinations) != 1 {
		t.Fatalf("the app sees the destinations %+v", fcm.Destinations)
	}
	if d := fcm.Destinations[0]; d.State != "waiting" || d.Reason != "429" || !d.Until.Equal(now) || d.Limit != 12 || d.Parked != 4 || !d.Since.Equal(now) ||
		!d.Slow || d.LatencyMs != 6000 || d.Failing != 0.25 || d.FailingCode != "503" || d.PerMinute != 600 || !d.PerMinuteSince.Equal(now) || d.DrainsIn != 2 {
		t.Errorf("got %+v", d)
	}
	var all producer.LaneList
	a.call("GET", "/v1/lanes", "", asOperator).read(t, &all)
	if n := len(all.Lanes[3].Destinations); all.Lanes[3].Lane != "fcm/bulk" || n != 2 {
		t.Errorf("the operator sees %d destinations of %s", n, all.Lanes[3].Lane)
	} else if d := all.Lanes[3].Destinations[0]; d.App != "news" || d.State != "blocked" {
		t.Errorf("without a credential: %+v", d)
	}
}

func TestCampaignsRateIsChanged(t *testing.T) {
	a := start(t)
	a.launch("")
	a.call("POST", "/v1/campaigns", `{"id":"winter","launch":true,`+campaignBody[1:])
	for body, want := range map[string]*producer.Pace{`{"per_second":20}`: {PerSecond: 20}, `{"per_second":0}`: nil} {
		got := a.call("POST", "/v1/campaigns/winter/rate", body)
		var c producer.Campaign
		got.read(t, &c)
		if got.status != http.StatusOK || (c.Pace == nil) != (want == nil) || want != nil && *c.Pace != *want {
			t.Errorf("%s: got %d %s", body, got.status, got.body)
		}
	}
	for _, body := range []string{`{}`, `{"per_second":-1}`, `{"per_second":"fast"}`} {
		if p := a.call("POST", "/v1/campaigns/winter/rate", body).problem(t); p.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %d %s", body, p.Status, p.Detail)
		}
	}
}
