package schemas

import (
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Cleanup is a topic's cleanup.policy.
type Cleanup string

const (
	Compact Cleanup = "compact"
	Delete  Cleanup = "delete"
)

// Topic is one entry of the plan. Name is without the cluster's prefix.
type Topic struct {
	Name       string
	Partitions int32
	Cleanup    Cleanup
	// Retention is how long a record is kept; 0 for compacted topics, whose newest record per key stays.
	Retention time.Duration
}

// Topics whose names stand alone. Those of a platform have a function each.
const (
	TopicDevices   = "devices"
	TopicEvents    = "events"
	TopicCommands  = "commands"
	TopicCampaigns = "campaigns"
	TopicAccounts  = "accounts"
	TopicLanes     = "lanes"
	TopicControl   = "control"
)

const day = 24 * time.Hour

// Limits that the topics' retention imposes: nothing may live longer than its topic keeps it.
const (
	// MaxTTL is the longest a delivery may wait for its end (send and retry topics keep 7 days).
	MaxTTL = 7*day - time.Hour
	// MaxCampaign is the longest from a campaign's creation to its end (chunks keep 30 days).
	MaxCampaign = 28 * day
)

// Tier is one retry topic's delay: the longest that anything waits there before it goes on or round, so that nothing waits long
// behind what lies before it.
type Tier struct {
	Name  string
	Delay time.Duration
}

// Tiers are the retry delays, shortest first.
var Tiers = []Tier{
	{"5s", 5 * time.Second},
	{"30s", 30 * time.Second},
	{"2m", 2 * time.Minute},
	{"10m", 10 * time.Minute},
	{"1h", time.Hour},
}

// ParkBudget is how many of an app's deliveries may be parked for one destination on the shorter retry topics: more wait as
// chunks, and what cannot goes to the longest tier. It is what an outage takes in, whatever its length: more of it would let
// the app's other destinations go on for longer, and have more to bring back.
const ParkBudget = 50_000

// TierFor returns the shortest tier that waits at least d, or the longest there is.
func TierFor(d time.Duration) Tier {
	for _, t := range Tiers {
		if t.Delay >= d {
			return t
		}
	}
	return Tiers[len(Tiers)-1]
}

// Platforms in the order in which people are shown them.
var Platforms = []pb.Platform{pb.Platform_PLATFORM_APNS, pb.Platform_PLATFORM_FCM, pb.Platform_PLATFORM_WEBPUSH}

// Classes, the one that somebody waits for first.
var Classes = []pb.Class{pb.Class_CLASS_URGENT, pb.Class_CLASS_BULK}

var platformNames = map[pb.Platform]string{
	pb.Platform_PLATFORM_APNS:    "apns",
	pb.Platform_PLATFORM_FCM:     "fcm",
	pb.Platform_PLATFORM_WEBPUSH: "webpush",
}

// PlatformName is the platform's name in topics, the API and metrics: apns, fcm, webpush, or "" for none.
func PlatformName(p pb.Platform) string { return platformNames[p] }

// ParsePlatform reads what PlatformName writes.
func ParsePlatform(s string) (pb.Platform, bool) {
	for p, name := range platformNames {
		if name == s {
			return p, true
		}
	}
	return pb.Platform_PLATFORM_UNSPECIFIED, false
}

// TargetPlatform is the platform whose target it is, or unspecified for none.
func TargetPlatform(t *pb.Target) pb.Platform {
	switch t.GetKind().(type) {
	case *pb.Target_Apns:
		return pb.Platform_PLATFORM_APNS
	case *pb.Target_Fcm:
		return pb.Platform_PLATFORM_FCM
	case *pb.Target_Webpush:
		return pb.Platform_PLATFORM_WEBPUSH
	}
	return pb.Platform_PLATFORM_UNSPECIFIED
}

// ClassName is the class's name in topics, the API and metrics: urgent, bulk, or "" for none.
func ClassName(c pb.Class) string {
	switch c {
	case pb.Class_CLASS_URGENT:
		return "urgent"
	case pb.Class_CLASS_BULK:
		return "bulk"
	}
	return ""
}

// LaneRole names a lane's role, which is its consumer group too: senders.apns.bulk.
func LaneRole(p pb.Platform, c pb.Class) string {
	return "senders." + PlatformName(p) + "." + ClassName(c)
}

// TopicChunks names the topic where a platform's backlog waits.
func TopicChunks(p pb.Platform) string { return "chunks." + PlatformName(p) }

// TopicSend names a lane's topic.
func TopicSend(p pb.Platform, c pb.Class) string {
	return "send." + PlatformName(p) + "." + ClassName(c)
}

// TopicRetry names the topic of a lane's deliveries that are put off by one tier's delay.
func TopicRetry(p pb.Platform, c pb.Class, t Tier) string {
	return "retry." + PlatformName(p) + "." + ClassName(c) + "." + t.Name
}

// TopicHeld names the topic of the events that wait until the rules of their app are known, one for each platform's trigger.
func TopicHeld(p pb.Platform) string { return "held." + PlatformName(p) }

// HoldRole names the consumer of TopicHeld.
func HoldRole(p pb.Platform) string { return "trigger." + PlatformName(p) + ".held" }

// TopicResults names the topic of a platform's outcomes.
func TopicResults(p pb.Platform) string { return "results." + PlatformName(p) }

// TopicDead names the topic of a platform's dead letters.
func TopicDead(p pb.Platform) string { return "dead." + PlatformName(p) }

// TopicDeadOf names where unreadable records of a topic that belongs to no platform go: events, devices, commands.
func TopicDeadOf(topic string) string { return "dead." + topic }

// TopicReplays names the topic of the replays that are under way on a platform.
func TopicReplays(p pb.Platform) string { return "replays." + PlatformName(p) }

// Plan is every topic of a cluster. Partition counts may be raised on a cluster by its operator except for keyed state, which
// is what is compacted, and what it is made from (commands, results, replays): there a key must keep its partition.
func Plan() []Topic {
	plan := []Topic{
		{TopicDevices, 12, Compact, 0},
		{TopicEvents, 12, Delete, 7 * day},
		{TopicCommands, 6, Delete, 7 * day},
		{TopicCampaigns, 6, Compact, 0},
		{TopicAccounts, 6, Compact, 0},
		{TopicLanes, 1, Compact, 0},
		{TopicControl, 1, Compact, 0},
		{TopicDeadOf(TopicEvents), 3, Delete, 14 * day},
		{TopicDeadOf(TopicDevices), 3, Delete, 14 * day},
		{TopicDeadOf(TopicCommands), 3, Delete, 14 * day},
	}
	for _, p := range Platforms {
		plan = append(
			plan,
			Topic{TopicChunks(p), 12, Delete, 30 * day},
			Topic{TopicSend(p, pb.Class_CLASS_URGENT), 6, Delete, 7 * day},
			Topic{TopicSend(p, pb.Class_CLASS_BULK), 12, Delete, 7 * day},
			Topic{TopicResults(p), 6, Delete, 7 * day},
			Topic{TopicDead(p), 3, Delete, 14 * day},
			Topic{TopicHeld(p), 3, Delete, 7 * day},
			// One partition, so that one process at a time knows what was sent again; kept for longer than any dead letter.
			Topic{TopicReplays(p), 1, Delete, 30 * day},
		)
		for _, c := range Classes {
			for _, t := range Tiers {
				plan = append(plan, Topic{TopicRetry(p, c, t), 3, Delete, 7 * day})
			}
		}
	}
	return plan
}
