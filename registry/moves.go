package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// A target belongs to one device of an app: the one that registered it last. Somebody who signs in on a phone that another
// used, or an app that was installed anew, registers the target that the phone has under another id, and the old device must
// not get the pushes of two. The two registrations lie on different partitions, so they may be applied in either order, and
// by different processes at once: registered_at decides. The device that lost it goes through Kafka, as a DeviceGone that
// names the target, so that a rebuild ends the same.
//
// The index of targets lets each device stand beside the others that claim the same. A device is stored, then stands there,
// then looks who else does: so of two at once the second finds the first, and doing it again finds the same.

const (
	// targetBuckets is how many sorted sets an app's targets are spread over. Redis packs those of at most 128 members, which
	// is up to two million devices.
	targetBuckets = 16_384
	// maxRivals bounds the others that a device looks at: where an app registers one target under more ids than this, as only
	// a test does, some may keep it until they register again.
	maxRivals = 16
	// codeMoved is why a device is gone that has lost its target.
	codeMoved = "moved"
)

// claim is a device's place in the index of targets: a member, its target's hash and its id, of a sorted set whose scores
// are all 0.
type claim struct {
	key  string
	hash string
	id   string
}

func (g *Registry) claim(app, id string, t *pb.Target) claim {
	hash := schemas.TargetHash(t)
	bucket := uint64(binary.BigEndian.Uint16(hash)) % targetBuckets
	return claim{g.devicesKey() + "{" + app + ":target:" + strconv.FormatUint(bucket, 10) + "}", string(hash), id}
}

func (c claim) member() string { return c.hash + c.id }

// claimants asks for the members of those who claim the same. No id holds a byte 0xff.
func (c claim) claimants(ctx context.Context, pipe redis.Pipeliner) *redis.StringSliceCmd {
	return pipe.ZRangeByLex(ctx, c.key, &redis.ZRangeBy{Min: "[" + c.hash, Max: "[" + c.hash + "\xff", Count: maxRivals + 1})
}

// rivals are two devices with the same target.
type rivals struct {
	device *pb.Device
	other  string
	was    stored
}

// move notes what targets the devices have now, and returns the devices that have lost theirs, these or others. The devices
// must have been stored.
func (g *Registry) move(ctx context.Context, states []state) ([]*pb.DeviceGone, error) {
	pipe := g.redis.Pipeline()
	asked := make([]*redis.StringSliceCmd, len(states))
	for i, s := range states {
		before, now := s.before.GetTarget(), s.now.GetTarget()
		if before.GetKind() != nil && !proto.Equal(before, now) {
			c := g.claim(s.app, s.id, before)
			pipe.ZRem(ctx, c.key, c.member())
		}
		if now.GetKind() != nil {
			c := g.claim(s.app, s.id, now)
			pipe.ZAdd(ctx, c.key, redis.Z{Member: c.member()})
			asked[i] = c.claimants(ctx, pipe)
		}
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("claim targets: %w", err)
	}
	var met []rivals
	pipe = g.redis.Pipeline()
	for i, s := range states {
		if asked[i] == nil {
			continue
		}
		for _, member := range asked[i].Val() {
			if other := member[len(schemas.TargetHash(nil)):]; other != s.id {
				met = append(met, rivals{s.now, other, g.load(ctx, pipe, s.app, other)})
			}
		}
	}
	if len(met) == 0 {
		return nil, nil
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("load the devices that have the same targets: %w", err)
	}
	var moved []*pb.DeviceGone
	for _, r := range met {
		if gone := r.loser(); gone != nil {
			moved = append(moved, gone)
		}
	}
	return moved, nil
}

// loser tells which of the two has the target no more: of two that registered it in the same millisecond, the one whose id
// is the smaller.
func (r rivals) loser() *pb.DeviceGone {
	hash := schemas.TargetHash(r.device.Target)
	other, err := r.was.device()
	if err != nil || other == nil || !bytes.Equal(schemas.TargetHash(other.Target), hash) {
		return nil // it is on its way to another target, or out
	}
	winner, loser := r.device, other
	if other.RegisteredAt > winner.RegisteredAt || other.RegisteredAt == winner.RegisteredAt && other.Id > winner.Id {
		winner, loser = other, r.device
	}
	return &pb.DeviceGone{
		App: loser.App, Id: loser.Id, Code: codeMoved, Target: hash,
		At: max(winner.RegisteredAt, loser.RegisteredAt+1), // a registration is gone that is older than this
	}
}
