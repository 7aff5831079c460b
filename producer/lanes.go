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
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Lane is where a lane stands, all its instances together.
type Lane struct {
	Lane      string  `json:"lane" example:"apns/bulk"`
	Instances int     `json:"instances" doc:"Processes that work on it and have said so within ten seconds"`
	Backlog   uint64  `json:"backlog" doc:"Deliveries on its topic that are not done"`
	DrainRate float64 `json:"drain_rate" doc:"Deliveries done per second, over ten seconds"`
	InFlight  uint64  `json:"in_flight" doc:"Requests that providers have not answered yet"`
	// OldestSeconds is the age of the oldest delivery that the lane holds.
	OldestSeconds float64       `json:"oldest_seconds" doc:"How long the oldest delivery that it holds has lain on its topic"`
	Restraint     *Restraint    `json:"restraint,omitempty" doc:"How an operator holds it back"`
	Destinations  []Destination `json:"destinations" doc:"What providers limit: the app's, or everybody's with an operator's key"`
}

// Destination is what a provider limits.
type Destination struct {
	App      string     `json:"app"`
	Name     string     `json:"name"`
	State    string     `json:"state" enum:"open,waiting,stopped,paused"`
	Reason   string     `json:"reason,omitempty" doc:"Why it is not open"`
	Until    *time.Time `json:"until,omitempty" doc:"When it is tried again"`
	InFlight uint64     `json:"in_flight"`
	Limit    uint64     `json:"limit" doc:"How many requests may be in flight, learnt from its answers"`
	Parked   uint64     `json:"parked" doc:"Deliveries that wait for it"`
}

// LaneList is every lane.
type LaneList struct {
	Lanes []Lane `json:"lanes"`
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
	who := callerOf(ctx)
	fresh := s.follower.lanes.Fresh()
	out := LaneList{}
	for _, p := range schemas.Platforms {
		for _, c := range schemas.Classes {
			lane := laneForm(p, c, fresh, func(app string) bool { return who.operator || app == who.app })
			name := control.Lane(p, c)
			if r := s.follower.control.Get(name); r != nil {
				form := restraintForm(name, r)
				lane.Restraint = &form
			}
			out.Lanes = append(out.Lanes, lane)
		}
	}
	return &laneListOutput{out}, nil
}

// laneForm adds up what a lane's instances say.
func laneForm(p pb.Platform, c pb.Class, statuses []*pb.LaneStatus, shown func(app string) bool) Lane {
	lane := Lane{Lane: join(schemas.PlatformName(p), schemas.ClassName(c)), Destinations: []Destination{}}
	together := map[[2]string]*pb.DestinationStatus{}
	for _, s := range statuses {
		if s.Platform != p || s.Class != c {
			continue
		}
		lane.Instances++
		lane.Backlog += s.Backlog
		lane.DrainRate += s.DrainRate
		lane.InFlight += s.InFlight
		lane.OldestSeconds = max(lane.OldestSeconds, float64(s.OldestMs)/1000)
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
	return sum
}

func destinationForm(d *pb.DestinationStatus) Destination {
	return Destination{
		App: d.App, Name: d.Name, State: strings.ToLower(strings.TrimPrefix(d.State.String(), "DESTINATION_STATE_")),
		Reason: d.Reason, Until: timeForm(d.Until), InFlight: d.InFlight, Limit: d.Limit, Parked: d.Parked,
	}
}
