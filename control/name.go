package control

import (
	"fmt"
	"strings"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Name is a part of the traffic, and the key of its restraint on belfry.control. Campaigns are not among them: they have
// their state and their pace in their own records.
type Name string

const (
	scopeLane        = "lane"
	scopeApp         = "app"
	scopeDestination = "destination"
	scopeHygiene     = "hygiene"
)

// Lane is all traffic of a platform and class.
func Lane(p pb.Platform, c pb.Class) Name {
	return join(scopeLane, schemas.PlatformName(p), schemas.ClassName(c))
}

// App is all traffic of an app, on every platform.
func App(app string) Name { return join(scopeApp, app) }

// Destination is an app's traffic to one destination, in both classes.
func Destination(p pb.Platform, app, destination string) Name {
	return join(scopeDestination, schemas.PlatformName(p), app, destination)
}

// Hygiene is no traffic: it is the removal of an app's devices that a platform's provider does not know any more.
func Hygiene(p pb.Platform, app string) Name { return join(scopeHygiene, schemas.PlatformName(p), app) }

func join(parts ...string) Name { return Name(schemas.Key(parts...)) }

// Parse reads a name as people write it: lane/apns/bulk, app/shop, destination/fcm/shop/my-project, hygiene/apns/shop.
func Parse(s string) (Name, error) {
	scope, rest, _ := strings.Cut(s, "/")
	if scope == scopeApp {
		if rest == "" || strings.Contains(rest, "/") {
			return "", fmt.Errorf("%q names no app: write app/NAME", s)
		}
		return App(rest), nil
	}
	platform, rest, _ := strings.Cut(rest, "/")
	p, known := schemas.ParsePlatform(platform)
	if !known && (scope == scopeLane || scope == scopeDestination || scope == scopeHygiene) {
		return "", fmt.Errorf("%q names no platform: write %s/ and one of apns, fcm, webpush", s, scope)
	}
	app, destination, _ := strings.Cut(rest, "/")
	switch {
	case scope == scopeLane:
		for _, c := range schemas.Classes {
			if schemas.ClassName(c) == rest {
				return Lane(p, c), nil
			}
		}
		return "", fmt.Errorf("%q names no lane: write lane/%s/urgent or lane/%s/bulk", s, platform, platform)
	case scope == scopeDestination && app != "" && destination != "":
		return Destination(p, app, destination), nil
	case scope == scopeHygiene && app != "" && destination == "":
		return Hygiene(p, app), nil
	}
	return "", fmt.Errorf("%q is none of lane/PLATFORM/CLASS, app/APP, destination/PLATFORM/APP/NAME, hygiene/PLATFORM/APP", s)
}

// App is the app that the name belongs to, or "" for a lane, which concerns all apps.
func (n Name) App() string {
	parts := strings.SplitN(string(n), "/", 4)
	switch {
	case parts[0] == scopeApp:
		return parts[1]
	case parts[0] == scopeLane || len(parts) < 3:
		return ""
	}
	return parts[2]
}

// Hygiene tells that the name is of no traffic, so that it can be paused but has no rate.
func (n Name) Hygiene() bool { return strings.HasPrefix(string(n), scopeHygiene+"/") }
