package producer

import (
	"fmt"
	"strings"
	"time"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// CampaignDefinition is what a campaign is created from.
type CampaignDefinition struct {
	ID       string          `json:"id,omitempty" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" doc:"Made from the Idempotency-Key, or at random, if left out" example:"winter-sale"`
	Name     string          `json:"name,omitempty" maxLength:"128" doc:"For people. The id, if left out"`
	Message  message.Message `json:"message"`
	Audience Audience        `json:"audience"`
	StartAt  *time.Time      `json:"start_at,omitempty" doc:"RFC 3339, within 28 days. At launch, if left out"`
	Pace     *Pace           `json:"pace,omitempty" doc:"As fast as the lanes drain, if left out"`
	Weight   uint32          `json:"weight,omitempty" maximum:"100" doc:"Share of the lanes among campaigns that wait: 1 (default) to 100"`
	Launch   bool            `json:"launch,omitempty" doc:"Launch it at once"`
	// RequireComplete goes with Launch.
	RequireComplete bool `json:"require_complete,omitempty" doc:"With launch: do nothing (409) when the registry has not all devices in time that were accepted before"`
}

// Audience says who is meant: exactly one of everyone, devices, users and filter.
type Audience struct {
	Everyone  bool     `json:"everyone,omitempty"`
	Devices   []string `json:"devices,omitempty" doc:"At most 10,000 ids"`
	Users     []string `json:"users,omitempty" doc:"At most 10,000 ids"`
	Filter    string   `json:"filter,omitempty" doc:"An expression over a device" example:"locale startsWith \"fr\" && attributes.paying == true"`
	Platforms []string `json:"platforms,omitempty" doc:"Of apns, fcm and webpush. All, if left out"`
}

// Pace slows a campaign down.
type Pace struct {
	PerSecond float64 `json:"per_second" exclusiveMinimum:"0" maximum:"10000000" doc:"Deliveries per second, over all platforms"`
}

// Campaign is a campaign as answers show it. Lists leave out message and audience.
type Campaign struct {
	ID         string            `json:"id"`
	Name       string            `json:"name,omitempty"`
	State      string            `json:"state,omitempty" enum:"draft,scheduled,running,paused,cancelled,finished,expired"`
	Reason     string            `json:"reason,omitempty" doc:"Why it is in this state, when nobody asked for it"`
	Warning    string            `json:"warning,omitempty" doc:"What was wrong at its launch: whom it may miss"`
	Message    *message.Message  `json:"message,omitempty"`
	Audience   *Audience         `json:"audience,omitempty" doc:"Lists of ids are left out once the campaign has ended"`
	Pace       *Pace             `json:"pace,omitempty"`
	Weight     uint32            `json:"weight,omitempty"`
	StartAt    *time.Time        `json:"start_at,omitempty"`
	CreatedAt  *time.Time        `json:"created_at,omitempty"`
	LaunchedAt *time.Time        `json:"launched_at,omitempty"`
	ExpiresAt  *time.Time        `json:"expires_at,omitempty" doc:"When its deliveries expire"`
	EndedAt    *time.Time        `json:"ended_at,omitempty"`
	Chunks     map[string]uint32 `json:"chunks,omitempty" doc:"Slices of the audience made at launch, by platform"`
	Settled    []string          `json:"settled,omitempty" doc:"Platforms whose every delivery has its outcome"`
	Command    string            `json:"command,omitempty" doc:"In the answer to an action: its id"`
}

const (
	// maxCampaign has room for 10,000 ids of 40 bytes, and is half of what a Kafka record may have.
	maxCampaign = 512 << 10
	maxListed   = 10_000
	// clockSkew is how far in the past a start may lie: clients' clocks differ.
	clockSkew = time.Minute
)

// proto checks the definition and makes the record, without its identity.
func (c *CampaignDefinition) proto(now time.Time) (*pb.Campaign, message.Problems) {
	var f faults
	out := &pb.Campaign{Name: c.Name, Weight: c.Weight, CreatedAt: now.UnixMilli()}
	ttl := message.DefaultTTL
	p, err := c.Message.Proto()
	if err == nil {
		var compiled *message.Compiled
		if compiled, err = message.Compile(p, message.Campaign); err == nil {
			ttl = compiled.TTL()
		}
	}
	if err != nil {
		f.in("message", err)
	}
	out.Message, out.Audience = p, c.Audience.proto(&f)
	if c.Pace != nil {
		out.Pace = &pb.Pace{PerSecond: c.Pace.PerSecond}
	}
	if c.StartAt != nil {
		out.StartAt = c.StartAt.UnixMilli()
		switch wait := c.StartAt.Sub(now); {
		case wait < -clockSkew:
			f.add("start_at", "lies in the past: leave it out to start at launch")
		case wait+ttl > schemas.MaxCampaign:
			f.add("start_at", "is too far away: a campaign must end, with its message's ttl, within 28 days")
		}
	}
	if c.RequireComplete && !c.Launch {
		f.add("require_complete", "goes with launch: true")
	}
	// The schema's own bounds (pattern, maximum) were checked when the body was read.
	if len(f.found) > 0 {
		return nil, f.found
	}
	return out, nil
}

func (a *Audience) proto(f *faults) *pb.Audience {
	out := &pb.Audience{Everyone: a.Everyone, Devices: a.Devices, Users: a.Users, Filter: a.Filter}
	given := 0
	for _, is := range []bool{a.Everyone, len(a.Devices) > 0, len(a.Users) > 0, a.Filter != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		f.add("audience", "must have exactly one of everyone, devices, users and filter")
	}
	f.checkList("audience.devices", a.Devices)
	f.checkList("audience.users", a.Users)
	if a.Filter != "" {
		if _, err := registry.CompileFilter(a.Filter); err != nil {
			f.in("audience.filter", err)
		}
	}
	for i, name := range a.Platforms {
		p, ok := schemas.ParsePlatform(name)
		if !ok {
			f.add(fmt.Sprintf("audience.platforms[%d]", i), "must be one of "+strings.Join(platformNames, ", "))
		}
		out.Platforms = append(out.Platforms, p)
	}
	return out
}

func (f *faults) checkList(field string, ids []string) {
	if len(ids) > maxListed {
		f.add(field, fmt.Sprintf("has %d ids; at most %d are allowed: use a filter, or several campaigns", len(ids), maxListed))
		return
	}
	for i, id := range ids {
		f.add(fmt.Sprintf("%s[%d]", field, i), events.IdentityFault(id))
	}
}

// stateNames are the states as answers show them.
var stateNames = map[pb.CampaignState]string{
	pb.CampaignState_CAMPAIGN_STATE_DRAFT:     "draft",
	pb.CampaignState_CAMPAIGN_STATE_SCHEDULED: "scheduled",
	pb.CampaignState_CAMPAIGN_STATE_RUNNING:   "running",
	pb.CampaignState_CAMPAIGN_STATE_PAUSED:    "paused",
	pb.CampaignState_CAMPAIGN_STATE_CANCELLED: "cancelled",
	pb.CampaignState_CAMPAIGN_STATE_FINISHED:  "finished",
	pb.CampaignState_CAMPAIGN_STATE_EXPIRED:   "expired",
}

// ended tells whether nothing can change a campaign any more.
func ended(state pb.CampaignState) bool {
	switch state {
	case pb.CampaignState_CAMPAIGN_STATE_CANCELLED, pb.CampaignState_CAMPAIGN_STATE_FINISHED, pb.CampaignState_CAMPAIGN_STATE_EXPIRED:
		return true
	}
	return false
}

// campaignForm is the whole campaign, listedForm what a list shows of it.
func campaignForm(p *pb.Campaign) Campaign {
	c := listedForm(p)
	c.Message = message.FromProto(p.Message)
	c.Audience = &Audience{
		Everyone: p.Audience.GetEveryone(), Devices: p.Audience.GetDevices(), Users: p.Audience.GetUsers(),
		Filter: p.Audience.GetFilter(), Platforms: namesOf(p.Audience.GetPlatforms()),
	}
	return c
}

func listedForm(p *pb.Campaign) Campaign {
	c := Campaign{
		ID: p.Id, Name: p.Name, State: stateNames[p.State], Reason: p.Reason, Warning: p.Warning, Weight: p.Weight,
		StartAt: timeForm(p.StartAt), CreatedAt: timeForm(p.CreatedAt), LaunchedAt: timeForm(p.LaunchedAt),
		ExpiresAt: timeForm(p.ExpiresAt), EndedAt: timeForm(p.EndedAt), Chunks: p.Chunks, Settled: namesOf(p.Settled),
	}
	if rate := p.Pace.GetPerSecond(); rate > 0 {
		c.Pace = &Pace{rate}
	}
	return c
}

func timeForm(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

func namesOf(platforms []pb.Platform) []string {
	var names []string
	for _, p := range platforms {
		names = append(names, schemas.PlatformName(p))
	}
	return names
}
