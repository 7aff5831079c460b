package schemas

import (
	"strings"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Names of destinations: what a provider limits by itself, within an app, as [pb.DestinationStatus] has them. An FCM project has
// its own name, which only the lane's configuration knows: there is one for each app.
const (
	DestinationProduction = "production"
	DestinationSandbox    = "sandbox"
	// DestinationOther is what web push origins share that are too many to have one each.
	DestinationOther = "other"
)

// pushServices are those of the browsers' vendors, by the end of their host names, and the destination each is.
var pushServices = []struct{ suffix, name string }{
	{"fcm.googleapis.com", "fcm.googleapis.com"},
	{"updates.push.services.mozilla.com", "updates.push.services.mozilla.com"},
	{".push.apple.com", "web.push.apple.com"},
	{".notify.windows.com", "notify.windows.com"},
}

// PushService is the destination of a browser's own push service, by an endpoint's canonical origin.
func PushService(origin string) (name string, known bool) {
	host := strings.TrimPrefix(origin, "https://")
	for _, s := range pushServices {
		if host == s.suffix || s.suffix[0] == '.' && strings.HasSuffix(host, s.suffix) {
			return s.name, true
		}
	}
	return "", false
}

// DestinationName is what a lane calls the destination of a target, or would if it had room for its name: "" for FCM's.
func DestinationName(t *pb.Target) string {
	switch k := t.GetKind().(type) {
	case *pb.Target_Apns:
		if k.Apns.GetEnvironment() == pb.Environment_ENVIRONMENT_SANDBOX {
			return DestinationSandbox
		}
		return DestinationProduction
	case *pb.Target_Webpush:
		o := origin(k.Webpush.GetEndpoint())
		if name, known := PushService(o); known {
			return name
		}
		return o
	}
	return ""
}

// origin is an endpoint's, as RFC 6454 writes it: in lower case, and with the port only where it is not the scheme's. Of what is no
// URL it is anything: that is the lane's to refuse.
func origin(endpoint string) string {
	scheme, rest, _ := strings.Cut(endpoint, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	scheme, rest = strings.ToLower(scheme), strings.ToLower(rest)
	rest = strings.TrimSuffix(rest, map[string]string{"https": ":443", "http": ":80"}[scheme])
	return scheme + "://" + rest
}
