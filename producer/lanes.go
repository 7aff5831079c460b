package producer

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Lane is where a lane stands, all its instances together. What is not known is left out.
type Lane struct {
	Lane      string  `json:"lane" example:"apns/bulk"`
	Instances int     `json:"instances" doc:"Processes that work on it and have said so within ten seconds. 0: nobody runs it"`
	Backlog   *uint64 `json:"backlog,omitempty" doc:"Deliveries on its topic that are not done, whether anybody runs it or not"`
	Retrying  *uint64 `json:"retrying,omitempty" doc:"Deliveries that wait on its retry topics until they are tried again. Not known of a lane that nobody runs"`
	DrainRate float64 `json:"drain_rate" doc:"Deliveries done per second, over ten seconds"`
	InFlight  uint64  `json:"in_flight" doc:"Requests that providers have not answered yet"`
	// OldestSeconds is the age of the oldest delivery that the lane holds.
	OldestSeconds *float64      `json:"oldest_seconds,omitempty" doc:"How old the oldest delivery is that it holds. Not known of a lane that nobody runs"`
	Restraint     *Restraint    `json:"restraint,omitempty" doc:"How an operator holds it back"`
	Destinations  []Destination `json:"destinations" doc:"What providers limit: the app's, or everybody's with an operator's key"`
}

// Destination is what a provider limits.
type Destination struct {
	App       string     `json:"app"`
	Name      string     `json:"name"`
	State     string     `json:"state" enum:"open,waiting,stopped,paused,blocked" doc:"blocked: no process has a credential for it"`
	Reason    string     `json:"reason,omitempty" doc:"Why it is not open"`
	Since     *time.Time `json:"since,omitempty" doc:"Since when it is not open"`
	Until     *time.Time `json:"until,omitempty" doc:"When it is tried again"`
	InFlight  uint64     `json:"in_flight"`
	Limit     uint64     `json:"limit" doc:"How many requests may be in flight, learnt from its answers"`
	Parked    uint64     `json:"parked" doc:"Deliveries that wait for it"`
	LatencyMs int64      `json:"latency_ms" doc:"How long its answers take, smoothed"`
	Slow      bool       `json:"slow" doc:"Its answers take two seconds or more"`
	// Failing is of the instance that meets it most.
	Failing     float64 `json:"failing,omitempty" doc:"Which part of its answers were failures that may be its own, within a minute, 0 to 1"`
	FailingCode string  `json:"failing_code,omitempty" doc:"What the last such failure was"`
	// PerMinute is the sum of what the instances have learnt.
	PerMinute      float64    `json:"per_minute,omitempty" doc:"Requests a minute that it takes, learnt from its answers or set by hand"`
	PerMinuteSince *time.Time `json:"per_minute_since,omitempty" doc:"Since when that holds"`
	DrainsIn       float64    `json:"drains_in_seconds,omitempty" doc:"How long what is parked and queued for it takes at that rate"`
}

// slowAnswer is how long answers may take on average before a destination is called slow.
const slowAnswer = 2 * time.Second

// LaneList is every lane, and the processes.
type LaneList struct {
	Lanes []Lane `json:"lanes"`
	Held  []Held `json:"held_events,omitempty" doc:"Events that wait: no process knows the rules of their app"`
	// Processes are for operators: they name apps.
	Processes []Process `json:"processes,omitempty" doc:"Those that spoke within a minute. With an operator's key"`
}

// Held is how many events wait on a platform.
type Held struct {
	Platform string `json:"platform" enum:"apns,fcm,webpush"`
	Events   uint64 `json:"events"`
}

// Process is one that serves, whatever its roles.
type Process struct {
	Instance string   `json:"instance"`
	Roles    []string `json:"roles"`
	Version  string   `json:"version"`
	Differs  []string `json:"differs,omitempty" doc:"What it was told otherwise than the process that answers: apps, their credentials and rules, redis.prefix"`
}

type laneListOutput struct{ Body LaneList }

func (s *Server) laneRoutes(api huma.API) {
	huma.Register(api, forOperators(operation(http.MethodGet, "/lanes", "list-lanes", ScopeRead, "Show the lanes",
		"Shows where each lane stands: what it has to do, how fast it does it, and the state of its destinations.",
		http.StatusOK)), s.listLanes)
}

func (s *Server) listLanes(ctx context.Context, _ *struct{}) (*laneListOutput, error) {
	if !s.follower.ready() {
		return nil, unavailable("The lanes' statuses are still being read from Kafka. Wait as Retry-After says and try again.")
	}
	if err := s.health.Unknown(); err != nil {
		return nil, unavailable("Where the lanes stand is not known: Kafka does not tell. Wait as Retry-After says and try again.")
	}
	who := callerOf(ctx)
	fresh := s.follower.lanes.Fresh()
	out := LaneList{}
	for _, p := range schemas.Platforms {
		for _, c := range schemas.Classes {
			lane := laneForm(p, c, fresh, func(app string) bool { return who.operator || app == who.app })
			if n, known := s.health.Waits(p, c); known && lane.Instances == 0 {
				waits := uint64(n)
				lane.Backlog = &waits
			}
			name := control.Lane(p, c)
			if r := s.follower.control.Get(name); r != nil {
				form := restraintForm(name, r)
				lane.Restraint = &form
			}
			out.Lanes = append(out.Lanes, lane)
		}
		if n := s.health.Held(p); n > 0 {
			out.Held = append(out.Held, Held{schemas.PlatformName(p), uint64(n)})
		}
	}
	if who.operator && s.options.Peer != nil {
		for _, p := range s.follower.lanes.Peers() {
			out.Processes = append(out.Processes, Process{
				p.Instance, p.Peer.Roles, p.Peer.Version, lanes.Differences(s.options.Peer, p.Peer),
			})
		}
	}
	return &laneListOutput{out}, nil
}

// laneForm adds up what a lane's instances say.
func laneForm(p pb.Platform, c pb.Class, statuses []*pb.LaneStatus, shown func(app string) bool) Lane {
	lane := Lane{Lane: join(schemas.PlatformName(p), schemas.ClassName(c)), Destinations: []Destination{}}
	together := map[[2]string]*pb.DestinationStatus{}
	var backlog, retrying uint64
	var oldest float64
	for _, s := range statuses {
		if s.Platform != p || s.Class != c {
			continue
		}
		lane.Instances++
		backlog += s.Backlog
		retrying += s.Retrying
		lane.DrainRate += s.DrainRate
		lane.InFlight += s.InFlight
		oldest = max(oldest, float64(s.OldestMs)/1000)
		for _, d := range s.Destinations {
			if !shown(d.App) {
				continue
			}
			key := [2]string{d.App, d.Name}
			if before := together[key]; before != nil {
				d = worse(before, d)
			}
			together[key] = d
		}
	}
	if lane.Instances > 0 {
		lane.Backlog, lane.Retrying, lane.OldestSeconds = &backlog, &retrying, &oldest
	}
	for _, d := range together {
		lane.Destinations = append(lane.Destinations, destinationForm(d))
	}
	slices.SortFunc(lane.Destinations, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name))
	})
	return lane
}

// worse is what two instances say of one destination: the sums, and the state of the one that is worse off.
func worse(a, b *pb.DestinationStatus) *pb.DestinationStatus {
	if b.State > a.State {
		a, b = b, a
	}
	sum := proto.CloneOf(a)
	sum.Until = max(a.Until, b.Until)
	sum.InFlight += b.InFlight
	sum.Limit += b.Limit
	sum.Parked += b.Parked
	sum.Queued += b.Queued
	sum.LatencyMs = max(a.LatencyMs, b.LatencyMs)
	if b.Failing > a.Failing {
		sum.Failing, sum.FailingCode = b.Failing, b.FailingCode
	}
	sum.PerMinute += b.PerMinute
	sum.PerMinuteSince = max(a.PerMinuteSince, b.PerMinuteSince)
	return sum
}

func destinationForm(d *pb.DestinationStatus) Destination {
	form := Destination{
		App: d.App, Name: d.Name, State: strings.ToLower(strings.TrimPrefix(d.State.String(), "DESTINATION_STATE_")),
		Reason: d.Reason, Since: timeForm(d.Since), Until: timeForm(d.Until), InFlight: d.InFlight, Limit: d.Limit, Parked: d.Parked,
		LatencyMs: d.LatencyMs, Slow: d.LatencyMs >= slowAnswer.Milliseconds(), Failing: d.Failing, FailingCode: d.FailingCode,
		PerMinute: d.PerMinute, PerMinuteSince: timeForm(d.PerMinuteSince),
	}
	if d.PerMinute > 0 {
		form.DrainsIn = float64(d.Parked+d.Queued) / d.PerMinute * 60
	}
	return form
}
