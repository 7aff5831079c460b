package fanout

import (
	"strings"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// outlook is what a platform's bulk lane makes of what it would be given: the destinations of each app that has any which take
// no more. Whoever is not in it goes: a destination that no lane knows, an app that no lane has met, everybody when no lane
// speaks. Then it is the lane that finds out, and the gate that bounds what this costs.
type outlook map[string]destinations

// destinations are an app's, by the name that schemas.DestinationName has for them.
type destinations map[string]door

// door is whether more deliveries would do anything but be parked.
type door uint8

const (
	open door = iota
	// doubtful takes nothing of what it has been given. That may be those deliveries' own, so each run may taste: see tastes.
	doubtful
	shut
)

// votes are what the instances of a lane say of one destination.
type votes struct {
	open, shut, held, blocked int
	parked                    uint64
}

// newOutlook counts the words of a platform's instances.
func newOutlook(statuses []*pb.LaneStatus, p pb.Platform) outlook {
	all, instances := map[string]map[string]*votes{}, 0
	for s := range bulkLanes(statuses, p) {
		instances++
		for _, d := range s.Destinations {
			of := all[d.App]
			if of == nil {
				of = map[string]*votes{}
				all[d.App] = of
			}
			name := d.Name
			if p == pb.Platform_PLATFORM_FCM {
				name = "" // each process may know the project by another
			}
			if of[name] == nil {
				of[name] = &votes{}
			}
			of[name].add(d)
		}
	}
	o := outlook{}
	for app, of := range all {
		known, any := destinations{}, false
		for name, v := range of {
			known[name] = v.say(instances)
			any = any || known[name] != open
		}
		if any {
			o[app] = known
		}
	}
	return o
}

func (v *votes) add(d *pb.DestinationStatus) {
	switch v.parked += d.Parked; {
	case !d.Shut:
		v.open++
	case d.State == pb.DestinationState_DESTINATION_STATE_BLOCKED:
		v.blocked++
	case d.State == pb.DestinationState_DESTINATION_STATE_PAUSED:
		v.held++
	default:
		v.shut++
	}
}

// say is the outcome: shut, when those who know it say so with one voice, or when it has its budget parked. One that has no
// credential for it speaks for itself alone. It would never hear from the others that they have one, as long as they are
// given nothing.
func (v *votes) say(instances int) door {
	switch {
	case v.parked >= schemas.ParkBudget || v.open == 0 && (v.held > 0 || v.blocked == instances):
		return shut
	case v.open == 0 && v.shut > 0:
		return doubtful
	}
	return open
}

// at is what a target's destination is.
func (d destinations) at(name string) door {
	is, known := d[name]
	if !known && strings.Contains(name, "://") {
		return d[schemas.DestinationOther] // an origin without a place of its own
	}
	return is
}

// best is the most that any target there could be on the platform may hope for. Of web push nobody knows.
func (d destinations) best(p pb.Platform) door {
	switch p {
	case pb.Platform_PLATFORM_APNS:
		return min(d[schemas.DestinationProduction], d[schemas.DestinationSandbox])
	case pb.Platform_PLATFORM_FCM:
		return d[""]
	}
	return open
}

// lets says whether a chunk may hold deliveries that would go, some for a taste if there may be one.
func (d destinations) lets(c *pb.Chunk, taste bool) bool {
	best := d.best(c.Platform)
	if len(c.Waits) > 0 {
		best = shut
		for _, name := range c.Waits {
			best = min(best, d.at(name))
		}
	}
	return best == open || taste && best == doubtful
}
