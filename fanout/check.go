package fanout

import (
	"fmt"
	"math"
	"regexp"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// maxDefinition keeps a campaign's record, with its decisions, under Kafka's usual limit of 1 MB, in bytes.
	maxDefinition = 900_000
	// maxListed is how many devices or users an audience may list.
	maxListed = 10_000
	maxWeight = 100
)

var (
	appForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	campaignForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// check says what is wrong with a campaign's definition, naming the field. The API has checked the same before; who
// writes commands past the API, or with an older release, is refused here.
func check(c *pb.Campaign, now time.Time) error {
	switch {
	case !appForm.MatchString(c.App):
		return refuse("app: must be an app's name: lower-case letters, digits and -, at most 32")
	case !campaignForm.MatchString(c.Id):
		return refuse("id: must be letters, digits, \".\", \"_\" and \"-\", at most 64")
	case c.Message == nil:
		return refuse("message: is missing")
	case ttl(c.Message) > schemas.MaxTTL:
		return refuse("message.ttl: is longer than the %s for which deliveries are kept", schemas.MaxTTL)
	case c.Weight > maxWeight:
		return refuse("weight: must be 1 to %d", maxWeight)
	}
	if _, err := message.Compile(c.Message, message.Campaign); err != nil {
		return refuse("message: %s", err)
	}
	if fault := paceFault(c.Pace.GetPerSecond()); fault != "" {
		return refuse("pace.per_second: %s", fault)
	}
	if fault := audienceFault(c.Audience); fault != "" {
		return refuse("audience%s", fault)
	}
	latest := time.UnixMilli(c.CreatedAt).Add(schemas.MaxCampaign)
	starts := time.UnixMilli(max(c.StartAt, now.UnixMilli()))
	if starts.Add(ttl(c.Message)).After(latest) {
		return refuse("start_at: the campaign must be over within %d days of its creation, by %s: start it sooner, or create it anew",
			schemas.MaxCampaign/(24*time.Hour), latest.UTC().Format(time.RFC3339))
	}
	if n := proto.Size(c); n > maxDefinition {
		return refuse("the definition takes %d bytes of the %d that a record may have: shorten the message or the audience's list", n, maxDefinition)
	}
	return nil
}

func paceFault(perSecond float64) string {
	if perSecond < 0 || math.IsNaN(perSecond) || math.IsInf(perSecond, 0) {
		return "must be a number above 0, or 0 for no limit"
	}
	return ""
}

// audienceFault says what is wrong with an audience: the field within it, and the fault.
func audienceFault(a *pb.Audience) string {
	kinds := 0
	for _, set := range []bool{a.GetEveryone(), len(a.GetDevices()) > 0, len(a.GetUsers()) > 0, a.GetFilter() != ""} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return ": must be exactly one of everyone, devices, users or filter"
	}
	if n := len(a.Devices) + len(a.Users); n > maxListed {
		return fmt.Sprintf(": lists %d ids; at most %d are allowed", n, maxListed)
	}
	for i, id := range a.Devices {
		if fault := events.IdentityFault(id); fault != "" {
			return fmt.Sprintf(".devices[%d]: %s", i, fault)
		}
	}
	for i, id := range a.Users {
		if fault := events.IdentityFault(id); fault != "" {
			return fmt.Sprintf(".users[%d]: %s", i, fault)
		}
	}
	for _, p := range a.Platforms {
		if schemas.PlatformName(p) == "" {
			return fmt.Sprintf(".platforms: unknown platform %d", p)
		}
	}
	if a.Filter != "" {
		if _, err := registry.CompileFilter(a.Filter); err != nil {
			return fmt.Sprintf(".filter: %s", err)
		}
	}
	return ""
}
