package letters

import (
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func TestFilters(t *testing.T) {
	facts := Facts{
		Platform: pb.Platform_PLATFORM_WEBPUSH, Class: pb.Class_CLASS_BULK, Run: "sale", Origin: "sin.notify.windows.com",
		Reason: "exhausted", Code: "503", At: 1000, Topic: "dead.webpush", Partition: 2, Offset: 7,
	}
	at := func(partition int32, next, end int64) []*pb.TopicRange {
		return []*pb.TopicRange{{Topic: "dead.webpush", Partition: partition, Next: next, End: end}}
	}
	for name, c := range map[string]struct {
		filter *pb.ReplayFilter
		want   bool
	}{
		"nothing":            {nil, true},
		"platform":           {&pb.ReplayFilter{Platforms: []pb.Platform{pb.Platform_PLATFORM_FCM, pb.Platform_PLATFORM_WEBPUSH}}, true},
		"other platform":     {&pb.ReplayFilter{Platforms: []pb.Platform{pb.Platform_PLATFORM_FCM}}, false},
		"class":              {&pb.ReplayFilter{Classes: []pb.Class{pb.Class_CLASS_URGENT}}, false},
		"campaign":           {&pb.ReplayFilter{Runs: []string{"sale"}}, true},
		"other campaign":     {&pb.ReplayFilter{Runs: []string{"sales"}}, false},
		"host":               {&pb.ReplayFilter{Origins: []string{"sin.notify.windows.com"}}, true},
		"domain":             {&pb.ReplayFilter{Origins: []string{"https://notify.windows.com"}}, true},
		"not a domain":       {&pb.ReplayFilter{Origins: []string{"fy.windows.com"}}, false},
		"reason":             {&pb.ReplayFilter{Reasons: []string{"exhausted"}}, true},
		"class of the code":  {&pb.ReplayFilter{Reasons: []string{"unknown-run", "5xx"}}, true},
		"other class":        {&pb.ReplayFilter{Reasons: []string{"4xx"}}, false},
		"code":               {&pb.ReplayFilter{Codes: []string{"503"}}, true},
		"part of a code":     {&pb.ReplayFilter{Codes: []string{"50"}}, false},
		"since":              {&pb.ReplayFilter{Since: 1000}, true},
		"before since":       {&pb.ReplayFilter{Since: 1001}, false},
		"until":              {&pb.ReplayFilter{Until: 1000}, false},
		"before until":       {&pb.ReplayFilter{Since: 900, Until: 1001}, true},
		"offset":             {&pb.ReplayFilter{Offsets: at(2, 7, 8)}, true},
		"beyond offset":      {&pb.ReplayFilter{Offsets: at(2, 0, 7)}, false},
		"other partition":    {&pb.ReplayFilter{Offsets: at(1, 0, 100)}, false},
		"all agree":          {&pb.ReplayFilter{Runs: []string{"sale"}, Codes: []string{"503"}, Reasons: []string{"5xx"}, Offsets: at(2, 0, 100)}, true},
		"one does not agree": {&pb.ReplayFilter{Runs: []string{"sale"}, Codes: []string{"500"}, Reasons: []string{"5xx"}}, false},
	} {
		if got := Match(c.filter, facts); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		endpoint, asked string
		want            bool
	}{
		{"https://127.0.0.1:9645/p/x", "127.0.0.1:9645", true},
		{"https://127.0.0.1:9645/p/x", "127.0.0.1:9646", false},
		{"https://push.example.com:8443/p", "push.example.com", true},
		{"https://push.example.com:8443/p", "EXAMPLE.com", true},
		{"https://web.push.apple.com/p", "apple.com", true},
		{"https://pineapple.com/p", "apple.com", false},
	} {
		origin := Origin(&pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: c.endpoint}}})
		if got := within(origin, c.asked); got != c.want {
			t.Errorf("%s, asked for %s: %v", c.endpoint, c.asked, got)
		}
	}
}

func TestClassesOfCodes(t *testing.T) {
	for code, want := range map[string]string{
		"503": "5xx", "500": "5xx", "429": "4xx", "ServiceUnavailable": "5xx", "UNAVAILABLE": "5xx", "TooManyRequests": "4xx",
		"5": "", "5ab": "", "timeout": "", "": "", "5031": "",
	} {
		for _, class := range []string{"4xx", "5xx"} {
			if got := ofClass(code, class); got != (class == want) {
				t.Errorf("%q of %s: %v", code, class, got)
			}
		}
	}
}

func TestClip(t *testing.T) {
	one := func(next, end int64) *pb.TopicRange { return &pb.TopicRange{Topic: "t", Next: next, End: end} }
	got := clip([]*pb.TopicRange{one(10, 50), {Topic: "u", Next: 0, End: 5}}, []*pb.TopicRange{one(0, 20), one(30, 90)})
	if len(got) != 1 || got[0].Next != 10 || got[0].End != 50 {
		t.Errorf("two within: %v", got)
	}
	got = clip([]*pb.TopicRange{one(10, 50)}, []*pb.TopicRange{one(20, 30)})
	if len(got) != 1 || got[0].Next != 20 || got[0].End != 30 {
		t.Errorf("narrowed: %v", got)
	}
	if got = clip([]*pb.TopicRange{one(10, 50)}, []*pb.TopicRange{one(60, 70)}); len(got) != 0 {
		t.Errorf("beside: %v", got)
	}
}
