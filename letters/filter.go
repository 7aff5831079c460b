package letters

import (
	"slices"
	"strings"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Facts are what a filter looks at, of a letter or a past delivery.
type Facts struct {
	Platform pb.Platform
	Class    pb.Class
	Run      string
	Origin   string
	Reason   string
	Code     string
	// At is when it ended, Unix ms.
	At int64
	// Topic, Partition and Offset are where it lies.
	Topic     string
	Partition int32
	Offset    int64
}

// Facts of a letter.
func (l *Letter) Facts() Facts {
	return Facts{
		Platform: l.Platform(), Class: l.GetDelivery().GetClass(), Run: l.GetDelivery().GetRun(),
		Origin: Origin(l.GetDelivery().GetTarget()), Reason: l.Reason, Code: l.Code,
		At: l.LastAt, Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
	}
}

// Match tells whether a filter means something with these facts.
func Match(f *pb.ReplayFilter, x Facts) bool {
	return oneOf(f.GetPlatforms(), x.Platform) && oneOf(f.GetClasses(), x.Class) && oneOf(f.GetRuns(), x.Run) &&
		agrees(f.GetOrigins(), func(o string) bool { return within(x.Origin, o) }) &&
		ended(f, x.Reason, x.Code, x.At) &&
		agrees(f.GetOffsets(), func(r *pb.TopicRange) bool {
			return r.Topic == x.Topic && r.Partition == x.Partition && r.Next <= x.Offset && x.Offset < r.End
		})
}

// ended looks at how and when something ended.
func ended(f *pb.ReplayFilter, reason, code string, at int64) bool {
	return at >= f.GetSince() && (f.GetUntil() == 0 || at < f.GetUntil()) &&
		agrees(f.GetReasons(), func(r string) bool { return r == reason || ofClass(code, r) }) && oneOf(f.GetCodes(), code)
}

// agrees is true for an empty list: what a filter leaves out agrees with all.
func agrees[T any](list []T, ok func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, ok)
}

func oneOf[T comparable](list []T, v T) bool { return agrees(list, func(x T) bool { return x == v }) }

// within tells whether a host is the domain or below it, so that notify.windows.com means all of its machines. A domain
// without a port means any.
func within(host, domain string) bool {
	domain = strings.ToLower(strings.TrimPrefix(domain, "https://"))
	name, _, _ := strings.Cut(host, ":")
	return host == domain || name == domain || strings.HasSuffix(host, "."+domain) || strings.HasSuffix(name, "."+domain)
}

// words are the codes that say a status without its number.
var words = map[string]string{
	"InternalServerError": "5xx", "ServiceUnavailable": "5xx", "Shutdown": "5xx", "INTERNAL": "5xx", "UNAVAILABLE": "5xx",
	"TooManyRequests": "4xx", "TooManyProviderTokenUpdates": "4xx", "QUOTA_EXCEEDED": "4xx", "RESOURCE_EXHAUSTED": "4xx",
}

// ofClass tells whether a code is one of 4xx or 5xx.
func ofClass(code, class string) bool {
	if class != "4xx" && class != "5xx" {
		return false
	}
	return words[code] == class || len(code) == 3 && code[0] == class[0] && strings.Trim(code, "0123456789") == ""
}
