package fanout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// A campaign's states, and what moves it from one to the next:
//
//	          launch                          every platform settled
//	 draft ─────────────▶ running ──────────────────────────────────▶ finished
//	   │  │                │   ▲  │                                    or expired, when its time
//	   │  │ launch with    │   │  │                                    was over by then
//	   │  │ start_at     pause resume                                      ▲
//	   │  ▼       start    ▼   │  │                                       │
//	   │ scheduled ──────▶ paused │           every platform settled      │
//	   │  │        (running) └────┼───────────────────────────────────────┘
//	   ▼  ▼                       ▼
//	 cancelled ◀──────────────── cancel, from any state that is not an end
//
// An ended campaign stays what it is. Its last deliveries may still be on their way, so it goes on to take note of
// platforms that settle. What asks for the state that a campaign already has is carried out by doing nothing. A platform
// without chunks is settled from the start, so a campaign that meets no device finishes when it is launched.

const (
	// keptDecisions is how many answers a campaign remembers for those who wait for theirs.
	keptDecisions = 8
	// maxRefused bounds the words of one, in bytes: they share the campaign's record.
	maxRefused = 2000
)

// Refusal is the answer to a command that is not carried out, in words for whoever gave it.
type Refusal string

func (r Refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Decide answers one command to a campaign, nil when there is none of that name. It returns the campaign as it is to be
// recorded, with the answer among its decisions; nil when there is nothing to record it in, and c itself when the same
// command was answered before. An error is a Refusal. c is not changed.
func Decide(c *pb.Campaign, cmd *pb.Command, now time.Time) (*pb.Campaign, error) {
	if c == nil {
		return create(cmd, now)
	}
	for _, d := range c.Decisions {
		if d.Command == cmd.Id {
			if d.Refused != "" {
				return c, Refusal(d.Refused)
			}
			return c, nil
		}
	}
	next := proto.CloneOf(c)
	err := move(next, cmd, now)
	if next.State != c.State || len(next.Settled) != len(c.Settled) || !proto.Equal(next.Pace, c.Pace) {
		next.Epoch++
	}
	decided(next, cmd, err)
	return next, err
}

// decided records the answer to a command.
func decided(c *pb.Campaign, cmd *pb.Command, err error) {
	d := &pb.Decision{Command: cmd.Id}
	if err != nil {
		text := err.Error()
		d.Refused = strings.ToValidUTF8(text[:min(len(text), maxRefused)], "")
	}
	c.Decisions = append(c.Decisions, d)
	c.Decisions = c.Decisions[max(0, len(c.Decisions)-keptDecisions):]
}

// move carries a command out, or refuses it and changes nothing.
func move(c *pb.Campaign, cmd *pb.Command, now time.Time) error {
	switch kind := cmd.Kind.(type) {
	case *pb.Command_Create:
		return refuse("campaign %s exists already: give the new one another id", c.Id)
	case *pb.Command_Launch:
		return launch(c, kind.Launch.GetWarning(), now)
	case *pb.Command_Start:
		return start(c, cmd, now)
	case *pb.Command_Pause:
		return pause(c, kind.Pause.GetReason())
	case *pb.Command_Resume:
		return resume(c)
	case *pb.Command_Cancel:
		return cancel(c, kind.Cancel.GetReason(), now)
	case *pb.Command_SetPace:
		return setPace(c, kind.SetPace.GetPerSecond())
	case *pb.Command_Settle:
		return settle(c, cmd, kind.Settle.GetPlatform(), now)
	default:
		return refuse("unknown kind of command: this launcher is older than who sent it")
	}
}

func create(cmd *pb.Command, now time.Time) (*pb.Campaign, error) {
	d := cmd.GetCreate()
	if d == nil {
		return nil, refuse("there is no campaign %s", cmd.Campaign)
	}
	c := &pb.Campaign{
		App: cmd.App, Id: cmd.Campaign, Name: d.Name, Message: d.Message, Audience: d.Audience,
		Pace: d.Pace, StartAt: d.StartAt, Weight: d.Weight,
		State: pb.CampaignState_CAMPAIGN_STATE_DRAFT, Epoch: 1, CreatedAt: now.UnixMilli(),
	}
	if err := check(c, now); err != nil {
		return nil, err
	}
	c = proto.CloneOf(c)
	decided(c, cmd, nil)
	return c, nil
}

// launch runs a draft, or schedules it. A warning is of this moment, so it says nothing of a start that is yet to come.
func launch(c *pb.Campaign, warning string, now time.Time) error {
	switch c.State {
	case pb.CampaignState_CAMPAIGN_STATE_DRAFT:
	case pb.CampaignState_CAMPAIGN_STATE_SCHEDULED,
		pb.CampaignState_CAMPAIGN_STATE_RUNNING,
		pb.CampaignState_CAMPAIGN_STATE_PAUSED:
		return nil
	default:
		return refuse("campaign %s is %s: a campaign runs once, create another", c.Id, stateName(c.State))
	}
	if err := check(c, now); err != nil {
		return err
	}
	if c.StartAt > now.UnixMilli() {
		c.State = pb.CampaignState_CAMPAIGN_STATE_SCHEDULED
		return nil
	}
	c.Warning = warning
	run(c, now)
	return nil
}

// start trusts the command's own time: the launcher's clock may be a little behind that of who watches the schedule.
func start(c *pb.Campaign, cmd *pb.Command, now time.Time) error {
	switch {
	case c.State == pb.CampaignState_CAMPAIGN_STATE_DRAFT:
		return refuse("campaign %s is a draft: launch it", c.Id)
	case c.State != pb.CampaignState_CAMPAIGN_STATE_SCHEDULED:
		return nil
	case cmd.At < c.StartAt:
		return refuse("campaign %s starts at %s", c.Id, time.UnixMilli(c.StartAt).UTC().Format(time.RFC3339))
	}
	if err := check(c, now); err != nil {
		// Nobody waits for this answer, and asking again would end the same.
		end(c, pb.CampaignState_CAMPAIGN_STATE_CANCELLED, "could not start: "+err.Error(), now)
		c.Settled = slices.Clone(schemas.Platforms)
		return nil
	}
	run(c, now)
	return nil
}

func run(c *pb.Campaign, now time.Time) {
	c.State = pb.CampaignState_CAMPAIGN_STATE_RUNNING
	c.LaunchedAt = now.UnixMilli()
	c.ExpiresAt = now.Add(ttl(c.Message)).UnixMilli()
}

func pause(c *pb.Campaign, reason string) error {
	switch c.State {
	case pb.CampaignState_CAMPAIGN_STATE_RUNNING:
		c.State, c.Reason = pb.CampaignState_CAMPAIGN_STATE_PAUSED, reason
	case pb.CampaignState_CAMPAIGN_STATE_PAUSED:
	default:
		return refuse("campaign %s is %s: only a running one can be paused", c.Id, stateName(c.State))
	}
	return nil
}

func resume(c *pb.Campaign) error {
	switch c.State {
	case pb.CampaignState_CAMPAIGN_STATE_PAUSED:
		c.State, c.Reason = pb.CampaignState_CAMPAIGN_STATE_RUNNING, ""
	case pb.CampaignState_CAMPAIGN_STATE_RUNNING:
	default:
		return refuse("campaign %s is %s: only a paused one can be resumed", c.Id, stateName(c.State))
	}
	return nil
}

func cancel(c *pb.Campaign, reason string, now time.Time) error {
	switch {
	case c.State == pb.CampaignState_CAMPAIGN_STATE_CANCELLED:
		return nil
	case ended(c):
		return refuse("campaign %s is %s: there is nothing left to cancel", c.Id, stateName(c.State))
	case c.LaunchedAt == 0:
		c.Settled = slices.Clone(schemas.Platforms)
	}
	end(c, pb.CampaignState_CAMPAIGN_STATE_CANCELLED, reason, now)
	return nil
}

// setPace changes the rate, of a running campaign too: expanders and lanes follow the record.
func setPace(c *pb.Campaign, perSecond float64) error {
	if ended(c) {
		return refuse("campaign %s is %s: there is nothing left to pace", c.Id, stateName(c.State))
	}
	if fault := paceFault(perSecond); fault != "" {
		return refuse("pace.per_second: %s", fault)
	}
	c.Pace = &pb.Pace{PerSecond: perSecond}
	return nil
}

// settle notes that a platform has an outcome for each of its deliveries, which the ledger says at the time of the last.
func settle(c *pb.Campaign, cmd *pb.Command, p pb.Platform, now time.Time) error {
	switch {
	case schemas.PlatformName(p) == "":
		return refuse("unknown platform %d", p)
	case c.LaunchedAt == 0 && !ended(c):
		return refuse("campaign %s is %s: it has nothing to settle", c.Id, stateName(c.State))
	case settled(c, p):
		return nil
	}
	c.Settled = append(c.Settled, p)
	slices.Sort(c.Settled)
	if len(c.Settled) < len(schemas.Platforms) || ended(c) {
		return nil
	}
	if cmd.At >= c.ExpiresAt {
		end(c, pb.CampaignState_CAMPAIGN_STATE_EXPIRED, "its time was over before every delivery had an outcome", now)
	} else {
		end(c, pb.CampaignState_CAMPAIGN_STATE_FINISHED, "", now)
	}
	return nil
}

// end takes the lists of the audience out, too: its chunks are cut, and it would stay with them in the memory of every process.
func end(c *pb.Campaign, s pb.CampaignState, reason string, now time.Time) {
	c.State, c.Reason, c.EndedAt = s, reason, now.UnixMilli()
	if c.Audience != nil {
		c.Audience.Devices, c.Audience.Users = nil, nil
	}
}

func ended(c *pb.Campaign) bool {
	switch c.State {
	case pb.CampaignState_CAMPAIGN_STATE_CANCELLED,
		pb.CampaignState_CAMPAIGN_STATE_FINISHED,
		pb.CampaignState_CAMPAIGN_STATE_EXPIRED:
		return true
	default:
		return false
	}
}

// stateName is the state as the API writes it: "running".
func stateName(s pb.CampaignState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "CAMPAIGN_STATE_"))
}

func ttl(m *pb.Message) time.Duration {
	if s := m.GetTtlSeconds(); s > 0 {
		return time.Duration(s) * time.Second
	}
	return message.DefaultTTL
}

func settled(c *pb.Campaign, p pb.Platform) bool { return slices.Contains(c.Settled, p) }
