package producer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Restraint holds back or slows down a part of the traffic.
type Restraint struct {
	Name      string     `json:"name" readOnly:"true" doc:"What it concerns: lane/PLATFORM/CLASS, app/APP, destination/PLATFORM/APP/NAME or hygiene/PLATFORM/APP" example:"lane/webpush/bulk"`
	Paused    bool       `json:"paused,omitempty" doc:"Nothing of it is sent. What a provider is being asked about goes through"`
	PerSecond float64    `json:"per_second,omitempty" minimum:"0" maximum:"10000000" doc:"Requests per second, of all instances together. A platform's urgent and bulk lanes keep to an app's or a destination's together"`
	Reason    string     `json:"reason,omitempty" maxLength:"500" doc:"For people"`
	By        string     `json:"by,omitempty" readOnly:"true" doc:"The name of the key that set it, or the role"`
	At        *time.Time `json:"at,omitempty" readOnly:"true"`
}

// RestraintList is what is in force.
type RestraintList struct {
	Restraints []Restraint `json:"restraints"`
}

// restraintBody is what somebody may say of one.
type restraintBody struct {
	Paused    bool    `json:"paused,omitempty" doc:"Send nothing of it. What a provider is being asked about goes through"`
	PerSecond float64 `json:"per_second,omitempty" minimum:"0" maximum:"10000000" doc:"Requests per second, of all instances together. A platform's urgent and bulk lanes keep to an app's or a destination's together"`
	Reason    string  `json:"reason,omitempty" maxLength:"500" doc:"For people"`
}

// LanePath, AppPath, DestinationPath and HygienePath are parts of inputs: see DevicePath.
type LanePath struct {
	Platform string `path:"platform" enum:"apns,fcm,webpush"`
	Class    string `path:"class" enum:"urgent,bulk"`
}

func (p LanePath) part() string { return join("lane", p.Platform, p.Class) }

type AppPath struct {
	App string `path:"app" doc:"The app's name" example:"shop"`
}

func (p AppPath) part() string { return join("app", p.App) }

type DestinationPath struct {
	Platform    string `path:"platform" enum:"apns,fcm,webpush"`
	App         string `path:"app" doc:"The app's name" example:"shop"`
	Destination string `path:"destination" doc:"Its name in GET /v1/lanes, percent-encoded" example:"production"`
}

func (p DestinationPath) part() string { return join("destination", p.Platform, p.App, p.Destination) }

type HygienePath struct {
	Platform string `path:"platform" enum:"apns,fcm,webpush"`
	App      string `path:"app" doc:"The app's name" example:"shop"`
}

func (p HygienePath) part() string { return join("hygiene", p.Platform, p.App) }

func join(parts ...string) string { return string(schemas.Key(parts...)) }

type (
	laneRestraint struct {
		LanePath
		Body restraintBody
	}
	appRestraint struct {
		AppPath
		Body restraintBody
	}
	destinationRestraint struct {
		DestinationPath
		Body restraintBody
	}
	hygieneRestraint struct {
		HygienePath
		Body restraintBody
	}
	restraintOutput     struct{ Body Restraint }
	restraintListOutput struct{ Body RestraintList }
)

const (
	// maxRestraint bounds a restraint's JSON.
	maxRestraint = 4 << 10
	// maxRestraints bounds how many things are held back at once: every lane looks each up.
	maxRestraints = 4096
)

func (s *Server) controlRoutes(api huma.API) {
	huma.Register(api, forOperators(operation(http.MethodGet, "/control", "list-restraints", ScopeRead, "List what is held back",
		"Lists the restraints in force: those of the app and of lanes, or all with an operator's key.", http.StatusOK)), s.listRestraints)
	put := func(path, id, summary string) huma.Operation {
		op := forOperators(operation(http.MethodPut, "/control/"+path, "restrain-"+id, ScopeManage, summary,
			"Takes effect within two seconds, on what is on the topics too, and stays until it is lifted. It replaces the one before.",
			http.StatusOK, http.StatusNotFound, http.StatusTooManyRequests))
		op.MaxBodyBytes = maxRestraint
		return op
	}
	lift := func(path, id, summary string) huma.Operation {
		return forOperators(operation(http.MethodDelete, "/control/"+path, "lift-"+id, ScopeManage, summary,
			"Goes on, at no rate but the campaigns' own. Lifting what is not in force is no error.",
			http.StatusNoContent, http.StatusNotFound, http.StatusTooManyRequests))
	}
	const lane, app, destination, hygiene = "lanes/{platform}/{class}", "apps/{app}", "destinations/{platform}/{app}/{destination}", "hygiene/{platform}/{app}"
	huma.Register(api, put(lane, "lane", "Pause or slow down a lane"), func(ctx context.Context, in *laneRestraint) (*restraintOutput, error) {
		return s.restrain(ctx, in.part(), in.Body)
	})
	huma.Register(api, put(app, "app", "Pause or slow down an app"), func(ctx context.Context, in *appRestraint) (*restraintOutput, error) {
		return s.restrain(ctx, in.part(), in.Body)
	})
	huma.Register(api, put(destination, "destination", "Pause or slow down a destination"), func(ctx context.Context, in *destinationRestraint) (*restraintOutput, error) {
		return s.restrain(ctx, in.part(), in.Body)
	})
	huma.Register(api, put(hygiene, "hygiene", "Stop removing devices"), func(ctx context.Context, in *hygieneRestraint) (*restraintOutput, error) {
		return s.restrain(ctx, in.part(), in.Body)
	})
	huma.Register(api, lift(lane, "lane", "Let a lane go on"), func(ctx context.Context, in *LanePath) (*struct{}, error) {
		return nil, s.lift(ctx, in.part())
	})
	huma.Register(api, lift(app, "app", "Let an app go on"), func(ctx context.Context, in *AppPath) (*struct{}, error) {
		return nil, s.lift(ctx, in.part())
	})
	huma.Register(api, lift(destination, "destination", "Let a destination go on"), func(ctx context.Context, in *DestinationPath) (*struct{}, error) {
		return nil, s.lift(ctx, in.part())
	})
	huma.Register(api, lift(hygiene, "hygiene", "Go on removing devices"), func(ctx context.Context, in *HygienePath) (*struct{}, error) {
		return nil, s.lift(ctx, in.part())
	})
}

func (s *Server) restrain(ctx context.Context, part string, in restraintBody) (*restraintOutput, error) {
	name, err := s.concerned(ctx, part)
	switch {
	case err != nil:
		return nil, err
	case name.Hygiene() && (!in.Paused || in.PerSecond > 0):
		return nil, invalid("paused", errors.New("must be true: hygiene can be paused, and has no rate"))
	case !in.Paused && in.PerSecond == 0:
		return nil, invalid("", errors.New("must have paused: true or per_second above 0; DELETE lifts a restraint"))
	}
	r := &pb.Restraint{
		Paused: in.Paused, PerSecond: in.PerSecond, Reason: in.Reason, By: callerOf(ctx).key, At: s.now().UnixMilli(),
	}
	value, err := control.Record(r)
	if err != nil {
		return nil, invalid("reason", err)
	}
	if s.follower.control.Get(name) == nil { // it is a new one
		p, err := s.names.take(ctx, name.App(), 1)
		if err != nil {
			return nil, busy(time.Minute, fmt.Sprintf("As much is held back for the app as may be: of %d restraints one app has at most half. "+
				"Lift what need not be held back any more, or pause the whole app.", s.names.whole))
		}
		defer p.release()
	}
	if err := s.control(ctx, name, value); err != nil {
		return nil, err
	}
	s.log.Info("restrained", "name", string(name), "paused", r.Paused, "per_second", r.PerSecond, "by", r.By)
	return &restraintOutput{restraintForm(name, r)}, nil
}

func (s *Server) lift(ctx context.Context, part string) error {
	name, err := s.concerned(ctx, part)
	if err != nil {
		return err
	}
	if err := s.control(ctx, name, nil); err != nil {
		return err
	}
	s.log.Info("restraint lifted", "name", string(name), "by", callerOf(ctx).key)
	return nil
}

// control writes a restraint, and waits until this process has read it: so what it counts is all there is.
func (s *Server) control(ctx context.Context, name control.Name, value []byte) error {
	if err := s.write(ctx, &kgo.Record{Topic: s.options.Kafka.Topic(schemas.TopicControl), Key: []byte(name), Value: value}); err != nil {
		return err
	}
	seen, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	_ = s.follower.control.CatchUp(seen) // late is as good: it is written
	return nil
}

// concerned reads a part's name, and refuses it to a key that may not control it.
func (s *Server) concerned(ctx context.Context, part string) (control.Name, error) {
	name, err := control.Parse(part)
	if err != nil {
		return "", problem(http.StatusNotFound, "not-found", "There is no such part of the traffic: "+err.Error()+".")
	}
	who, app := callerOf(ctx), name.App()
	switch _, exists := s.options.Keys[app]; {
	case who.operator && (app == "" || exists), !who.operator && app == who.app:
		return name, nil
	case who.operator:
		return "", problem(http.StatusNotFound, "not-found", "There is no app of this name in the configuration.")
	case app == "":
		return "", problem(http.StatusForbidden, "forbidden", "A lane concerns every app: use an operator's key (operators in the configuration).")
	}
	return "", problem(http.StatusForbidden, "forbidden", "The key is another app's. Use one of this app's, or an operator's.")
}

func (s *Server) listRestraints(ctx context.Context, _ *struct{}) (*restraintListOutput, error) {
	if !s.follower.ready() {
		return nil, unavailable("What is held back is still being read from Kafka. Wait as Retry-After says and try again.")
	}
	who := callerOf(ctx)
	out := RestraintList{Restraints: []Restraint{}}
	for name, r := range s.follower.control.All() {
		if who.operator || name.App() == "" || name.App() == who.app {
			out.Restraints = append(out.Restraints, restraintForm(name, r))
		}
	}
	slices.SortFunc(out.Restraints, func(a, b Restraint) int { return cmp.Compare(a.Name, b.Name) })
	return &restraintListOutput{out}, nil
}

func restraintForm(name control.Name, r *pb.Restraint) Restraint {
	return Restraint{
		Name: string(name), Paused: r.GetPaused(), PerSecond: r.GetPerSecond(), Reason: r.GetReason(),
		By: r.GetBy(), At: timeForm(r.GetAt()),
	}
}
