package schemas

import (
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func TestPlatformsShareAPaceByTheirChunks(t *testing.T) {
	const apns, fcm, webpush = pb.Platform_PLATFORM_APNS, pb.Platform_PLATFORM_FCM, pb.Platform_PLATFORM_WEBPUSH
	c := &pb.Campaign{Pace: &pb.Pace{PerSecond: 100}, Chunks: map[string]uint32{"apns": 1, "fcm": 3}, Settled: []pb.Platform{webpush}}
	if a, f := PlatformPace(c, apns), PlatformPace(c, fcm); a != 25 || f != 75 {
		t.Errorf("%v and %v of 100", a, f)
	}
	c.Settled = []pb.Platform{apns, webpush}
	if f := PlatformPace(c, fcm); f != 100 {
		t.Errorf("the last one has %v of 100", f)
	}
	if a := PlatformPace(c, apns); a != 25 {
		t.Errorf("what comes again of one that is settled has %v", a)
	}
	if f := PlatformPace(&pb.Campaign{Pace: c.Pace}, fcm); f != 100 {
		t.Errorf("before the launch: %v", f)
	}
	c.Pace = nil
	if f := PlatformPace(c, fcm); f != 0 {
		t.Errorf("without a pace: %v", f)
	}
}
