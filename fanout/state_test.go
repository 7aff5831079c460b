package fanout

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	apns    = pb.Platform_PLATFORM_APNS
	fcm     = pb.Platform_PLATFORM_FCM
	webpush = pb.Platform_PLATFORM_WEBPUSH
)

func definition() *pb.Campaign {
	return &pb.Campaign{
		App: "shop", Id: "c1", Name: "Sale",
		Message:  &pb.Message{Content: &pb.Content{Title: "Hello {{ user }}"}, TtlSeconds: 3600},
		Audience: &pb.Audience{Everyone: true},
	}
}

// inState is a campaign that came to a state at epoch; one that has been launched has settled all platforms but FCM.
func inState(s pb.CampaignState) *pb.Campaign {
	c := definition()
	c.State, c.Epoch, c.CreatedAt = s, 7, epoch.UnixMilli()
	switch s {
	case pb.CampaignState_CAMPAIGN_STATE_DRAFT:
	case pb.CampaignState_CAMPAIGN_STATE_SCHEDULED:
		c.StartAt = epoch.Add(time.Minute).UnixMilli()
	default:
		run(c, epoch)
		c.State = s
		c.Settled = []pb.Platform{apns, webpush}
	}
	return c
}

// commands by what they are called in the table below.
var commands = map[string]*pb.Command{
	"create":      {Kind: &pb.Command_Create{Create: definition()}},
	"launch":      {Kind: &pb.Command_Launch{Launch: &pb.Launch{}}},
	"start":       {Kind: &pb.Command_Start{Start: &pb.Start{}}, At: epoch.Add(time.Minute).UnixMilli()},
	"start early": {Kind: &pb.Command_Start{Start: &pb.Start{}}, At: epoch.UnixMilli()},
	"pause":       {Kind: &pb.Command_Pause{Pause: &pb.Pause{Reason: "typo"}}},
	"resume":      {Kind: &pb.Command_Resume{Resume: &pb.Resume{}}},
	"cancel":      {Kind: &pb.Command_Cancel{Cancel: &pb.Cancel{Reason: "wrong"}}},
	"settle last": {Kind: &pb.Command_Settle{Settle: &pb.Settle{Platform: fcm}}, At: epoch.UnixMilli()},
	"settle late": {Kind: &pb.Command_Settle{Settle: &pb.Settle{Platform: fcm}}, At: epoch.Add(time.Hour).UnixMilli()},
	"settle same": {Kind: &pb.Command_Settle{Settle: &pb.Settle{Platform: apns}}, At: epoch.UnixMilli()},
	"settle none": {Kind: &pb.Command_Settle{Settle: &pb.Settle{}}},
	"pace":        {Kind: &pb.Command_SetPace{SetPace: &pb.SetPace{PerSecond: 50}}},
	"bad pace":    {Kind: &pb.Command_SetPace{SetPace: &pb.SetPace{PerSecond: -1}}},
	"unknown":     {},
}

// transitions: for each state and command the state after it, "" where it is refused.
var transitions = map[string]map[string]string{
	"draft": {
		"pace": "draft", "launch": "running", "cancel": "cancelled",
	},
	"scheduled": {
		"pace": "scheduled", "launch": "scheduled", "start": "running", "cancel": "cancelled",
	},
	"running": {
		"pace": "running", "launch": "running", "start": "running", "start early": "running", "pause": "paused", "resume": "running",
		"cancel": "cancelled", "settle last": "finished", "settle late": "expired", "settle same": "running",
	},
	"paused": {
		"pace": "paused", "launch": "paused", "start": "paused", "start early": "paused", "pause": "paused", "resume": "running",
		"cancel": "cancelled", "settle last": "finished", "settle late": "expired", "settle same": "paused",
	},
	"cancelled": {
		"start": "cancelled", "start early": "cancelled", "cancel": "cancelled",
		"settle last": "cancelled", "settle late": "cancelled", "settle same": "cancelled",
	},
	"finished": {
		"start": "finished", "start early": "finished",
		"settle last": "finished", "settle late": "finished", "settle same": "finished",
	},
	"expired": {
		"start": "expired", "start early": "expired",
		"settle last": "expired", "settle late": "expired", "settle same": "expired",
	},
}

func TestEveryCommandInEveryState(t *testing.T) {
	now := epoch.Add(time.Minute)
	for number := range pb.CampaignState_name {
		state := pb.CampaignState(number)
		if state == pb.CampaignState_CAMPAIGN_STATE_UNSPECIFIED {
			continue
		}
		for name, cmd := range commands {
			t.Run(stateName(state)+"/"+name, func(t *testing.T) {
				cmd = proto.CloneOf(cmd)
				cmd.Id, cmd.App, cmd.Campaign = "k", "shop", "c1"
				before := inState(state)
				was := proto.CloneOf(before)
				next, err := Decide(before, cmd, now)
				if !proto.Equal(before, was) {
					t.Fatal("Decide changed its argument")
				}
				checkTransition(t, was, next, err, transitions[stateName(state)][name])
			})
		}
	}
}

func checkTransition(t *testing.T, was, next *pb.Campaign, err error, want string) {
	t.Helper()
	answer := next.Decisions[len(next.Decisions)-1]
	if answer.Command != "k" {
		t.Errorf("the last decision answers %q", answer.Command)
	}
	if want == "" {
		var refusal Refusal
		if !errors.As(err, &refusal) || answer.Refused != string(refusal) {
			t.Errorf("want a refusal, got %v, recorded as %q", err, answer.Refused)
		}
		next.Decisions = nil
		if !proto.Equal(was, next) {
			t.Errorf("a refused command changed the campaign to %v", next)
		}
		return
	}
	if err != nil || stateName(next.State) != want {
		t.Fatalf("got %s, %v; want %s", stateName(next.State), err, want)
	}
	changed := next.State != was.State || len(next.Settled) != len(was.Settled) || !proto.Equal(next.Pace, was.Pace)
	if want := was.Epoch + map[bool]uint64{true: 1}[changed]; next.Epoch != want {
		t.Errorf("epoch %d, want %d", next.Epoch, want)
	}
	if next.State != was.State && ended(next) != (next.EndedAt != 0) {
		t.Errorf("state %s with ended_at %d", want, next.EndedAt)
	}
	if next.State == pb.CampaignState_CAMPAIGN_STATE_RUNNING && next.ExpiresAt-next.LaunchedAt != time.Hour.Milliseconds() {
		t.Errorf("launched at %d, expires at %d", next.LaunchedAt, next.ExpiresAt)
	}
	if was.LaunchedAt == 0 && ended(next) && len(next.Settled) != len(schemas.Platforms) {
		t.Errorf("nothing was launched, yet only %v are settled", next.Settled)
	}
}

func TestLaunchWaitsForItsTime(t *testing.T) {
	c := inState(pb.CampaignState_CAMPAIGN_STATE_DRAFT)
	c.StartAt = epoch.Add(time.Hour).UnixMilli()
	c, err := Decide(c, &pb.Command{Id: "k", Kind: commands["launch"].Kind}, epoch)
	if err != nil || c.State != pb.CampaignState_CAMPAIGN_STATE_SCHEDULED || c.LaunchedAt != 0 {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestSameCommandGetsTheSameAnswer(t *testing.T) {
	c := inState(pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	resume := &pb.Command{Id: "r", Kind: commands["resume"].Kind}
	pause := &pb.Command{Id: "p", Kind: commands["pause"].Kind}
	again := &pb.Command{Id: "c", Kind: commands["create"].Kind}
	for _, cmd := range []*pb.Command{pause, resume, again} {
		c, _ = Decide(c, cmd, epoch)
	}
	// A retried pause must not pause what was resumed since.
	if next, err := Decide(c, pause, epoch); next != c || err != nil {
		t.Errorf("the pause was decided again: %v, %v", next.State, err)
	}
	if next, err := Decide(c, again, epoch); next != c || err == nil {
		t.Errorf("the refusal was forgotten: %v", err)
	}
	for i := range 20 {
		c, _ = Decide(c, &pb.Command{Id: string(rune('A' + i)), Kind: commands["launch"].Kind}, epoch)
	}
	if len(c.Decisions) != keptDecisions || c.Decisions[keptDecisions-1].Command != "T" {
		t.Errorf("kept %v", c.Decisions)
	}
}

func TestCreate(t *testing.T) {
	cmd := &pb.Command{Id: "k", App: "shop", Campaign: "c1", Kind: &pb.Command_Create{Create: &pb.Campaign{
		Message: definition().Message, Audience: definition().Audience, Weight: 3,
		// Not the definition's to say:
		State: pb.CampaignState_CAMPAIGN_STATE_FINISHED, Epoch: 9, ExpiresAt: 1, Chunks: map[string]uint32{"apns": 1},
	}}}
	c, err := Decide(nil, cmd, epoch)
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.Campaign{
		App: "shop", Id: "c1", Message: definition().Message, Audience: definition().Audience, Weight: 3,
		State: pb.CampaignState_CAMPAIGN_STATE_DRAFT, Epoch: 1, CreatedAt: epoch.UnixMilli(),
		Decisions: []*pb.Decision{{Command: "k"}},
	}
	if !proto.Equal(c, want) {
		t.Errorf("got  %v\nwant %v", c, want)
	}
	if c, err := Decide(nil, &pb.Command{Id: "k", Campaign: "c9", Kind: commands["launch"].Kind}, epoch); c != nil || err == nil {
		t.Errorf("launched a campaign that is not there: %v, %v", c, err)
	}
}

func TestBadDefinitionsAreRefusedByField(t *testing.T) {
	many := make([]string, maxListed+1)
	for i := range many {
		many[i] = "d"
	}
	for field, spoil := range map[string]func(*pb.Campaign){
		"message: is missing":   func(c *pb.Campaign) { c.Message = nil },
		"message:":              func(c *pb.Campaign) { c.Message.Content.Title = "{{ nobody }}" },
		"message.ttl":           func(c *pb.Campaign) { c.Message.TtlSeconds = 8 * 24 * 3600 },
		"weight":                func(c *pb.Campaign) { c.Weight = 101 },
		"pace.per_second":       func(c *pb.Campaign) { c.Pace = &pb.Pace{PerSecond: -1} },
		"audience: must be":     func(c *pb.Campaign) { c.Audience = nil },
		"audience: must":        func(c *pb.Campaign) { c.Audience.Users = []string{"u"} },
		"audience: lists":       func(c *pb.Campaign) { c.Audience = &pb.Audience{Devices: many} },
		"audience.devices[1]":   func(c *pb.Campaign) { c.Audience = &pb.Audience{Devices: []string{"d", "a/b"}} },
		"audience.users[0]":     func(c *pb.Campaign) { c.Audience = &pb.Audience{Users: []string{""}} },
		"audience.filter":       func(c *pb.Campaign) { c.Audience = &pb.Audience{Filter: "locale =="} },
		"audience.platforms":    func(c *pb.Campaign) { c.Audience.Platforms = []pb.Platform{9} },
		"start_at":              func(c *pb.Campaign) { c.StartAt = epoch.Add(28 * 24 * time.Hour).UnixMilli() },
		"the definition takes ": func(c *pb.Campaign) { c.Message.Content.Body = strings.Repeat("x", maxDefinition) },
	} {
		d := definition()
		spoil(d)
		cmd := &pb.Command{Id: "k", App: "shop", Campaign: "c1", Kind: &pb.Command_Create{Create: d}}
		if _, err := Decide(nil, cmd, epoch); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for field, cmd := range map[string]*pb.Command{
		"app": {Id: "k", App: "No", Campaign: "c1", Kind: commands["create"].Kind},
		"id":  {Id: "k", App: "shop", Campaign: "a b", Kind: commands["create"].Kind},
	} {
		if _, err := Decide(nil, cmd, epoch); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestStartOfWhatIsBadByNowEnds(t *testing.T) {
	c := inState(pb.CampaignState_CAMPAIGN_STATE_SCHEDULED)
	c.Audience = &pb.Audience{Filter: "no longer =="}
	c, err := Decide(c, &pb.Command{Id: "k", At: c.StartAt, Kind: commands["start"].Kind}, epoch)
	if err != nil || c.State != pb.CampaignState_CAMPAIGN_STATE_CANCELLED || !strings.Contains(c.Reason, "audience.filter") {
		t.Errorf("got %v, %v", c, err)
	}
}

// What was wrong at a launch stays with the campaign; of one that starts later it says nothing.
func TestALaunchKeepsItsWarning(t *testing.T) {
	for startAt, want := range map[time.Time]string{{}: "it may miss some", epoch.Add(time.Hour): ""} {
		c := inState(pb.CampaignState_CAMPAIGN_STATE_DRAFT)
		if !startAt.IsZero() {
			c.StartAt = startAt.UnixMilli()
		}
		next, err := Decide(c, &pb.Command{Id: "k", Kind: &pb.Command_Launch{Launch: &pb.Launch{Warning: "it may miss some"}}}, epoch)
		if err != nil || next.Warning != want {
			t.Errorf("start at %v: %q, %v", startAt, next.GetWarning(), err)
		}
	}
}
