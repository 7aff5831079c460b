package fanout

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// FuzzDecide: whatever command meets whatever campaign, it is refused and moves nothing, or the campaign that comes of it
// is one epoch on, and can be written.
func FuzzDecide(f *testing.F) {
	seed := func(c *pb.Campaign, cmd *pb.Command) {
		campaign, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		command, err := proto.Marshal(cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(campaign, command)
	}
	definition := &pb.Campaign{
		Audience: &pb.Audience{Filter: `locale == "fr"`}, Message: &pb.Message{Content: &pb.Content{Title: "Hi {{ user }}"}},
	}
	seed(nil, &pb.Command{Id: "1", App: "a", Campaign: "c", Kind: &pb.Command_Create{Create: definition}})
	for state := range pb.CampaignState_name {
		c := proto.CloneOf(definition)
		c.App, c.Id, c.State, c.Epoch = "a", "c", pb.CampaignState(state), 3
		seed(c, &pb.Command{Id: "2", App: "a", Campaign: "c", Kind: &pb.Command_Launch{Launch: &pb.Launch{}}})
		seed(c, &pb.Command{Id: "3", App: "a", Campaign: "c", Kind: &pb.Command_Pause{Pause: &pb.Pause{Reason: "x"}}})
		seed(c, &pb.Command{Id: "4", App: "a", Campaign: "c", Kind: &pb.Command_Settle{Settle: &pb.Settle{Platform: 1}}})
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, campaign, command []byte) {
		var c *pb.Campaign
		cmd := &pb.Command{}
		if len(campaign) > 0 {
			c = &pb.Campaign{}
			if proto.Unmarshal(campaign, c) != nil {
				return
			}
		}
		if proto.Unmarshal(command, cmd) != nil {
			return
		}
		before := proto.CloneOf(c)
		next, err := Decide(c, cmd, now)
		if c != nil && !proto.Equal(before, c) {
			t.Error("the campaign that was there is changed")
		}
		var refused Refusal
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("the error is no Refusal: %v", err)
		}
		if next == nil || next == c {
			return
		}
		if c != nil && next.State != c.State && next.Epoch != c.Epoch+1 {
			t.Errorf("from %v of epoch %d to %v of epoch %d", c.State, c.Epoch, next.State, next.Epoch)
		}
		if c != nil && err != nil && next.State != c.State {
			t.Errorf("a refused command moved it from %v to %v", c.State, next.State)
		}
		if _, err := proto.Marshal(next); err != nil {
			t.Errorf("the campaign cannot be written: %v", err)
		}
	})
}

// FuzzChunk: a chunk that is let through lies within the registry.
func FuzzChunk(f *testing.F) {
	for _, c := range []*pb.Chunk{
		{App: "a", Run: "c", Platform: pb.Platform_PLATFORM_FCM, EndShard: 4096, Total: 1, Estimate: 5},
		{App: "a", Run: "c", Platform: pb.Platform_PLATFORM_FCM, FirstShard: 9, EndShard: 8},
		{App: "a", Run: "c", Platform: pb.Platform_PLATFORM_APNS, Devices: []string{"d"}},
	} {
		value, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	e := &expander{platform: pb.Platform_PLATFORM_FCM}
	f.Fuzz(func(t *testing.T, value []byte) {
		c := &pb.Chunk{}
		if proto.Unmarshal(value, c) != nil || e.fault(c) != nil {
			return
		}
		if c.FirstShard > c.EndShard || c.EndShard > schemas.Shards || c.Platform != e.platform || c.App == "" {
			t.Errorf("let through: %v", c)
		}
	})
}

// FuzzWhen: whatever a rule's condition is, it is refused when it is compiled, or met or not by any event.
func FuzzWhen(f *testing.F) {
	event, err := proto.Marshal(&pb.Event{App: "a", Id: "1", Name: "n", User: "u", At: 5, Fields: map[string]*pb.Value{
		"total": {Kind: &pb.Value_Number{Number: 12.5}}, "to": {Kind: &pb.Value_Text{Text: "x"}}, "gift": {Kind: &pb.Value_Flag{Flag: true}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	for _, when := range []string{
		`fields.total > 10 && user != ""`, `fields.to contains "x" or fields.gift`, `at.Year() == 2026`, `name matches "^n"`,
		`len(fields) == 3`, `fields["total"] / 0 > 1`, `any(keys(fields), # == "to")`, `true ? `,
	} {
		f.Add(when, event)
	}
	f.Fuzz(func(_ *testing.T, when string, value []byte) {
		e := &pb.Event{}
		if len(when) > 200 || proto.Unmarshal(value, e) != nil {
			return
		}
		rule := Rule{App: "a", Name: "r", Event: "n", When: when, Message: &pb.Message{Content: &pb.Content{Title: "t"}}}
		if compiled, err := rule.compile(); err == nil {
			compiled.matches(e, slog.New(slog.DiscardHandler))
		}
	})
}
