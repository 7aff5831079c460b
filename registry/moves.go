package registry

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// A target belongs to one device of an app: the one that registered it last. Somebody who signs in on a phone that another
// used, or an app that was installed anew, registers the target that the phone has under another id, and the old device must
// not get the pushes of two. The two registrations lie on different partitions, so they may be applied in either order, and
// by different processes at once: registered_at decides, and the later one claims the target in Redis, atomically. The device
// that lost it goes through Kafka, as a DeviceGone that names the target, so that a rebuild ends the same.

//go:embed claim.lua
var claimLua string

var claimScript = redis.NewScript(claimLua)

// codeMoved is why such a device is gone.
const codeMoved = "moved"

// targetKey names the hash of an app's targets of which the hash begins alike: target's hash → registered_at:device.
func (g *Registry) targetKey(app string, hash []byte) string {
	bucket := uint64(binary.BigEndian.Uint16(hash)) % schemas.Shards
	return g.devicesKey() + "{" + app + ":target:" + strconv.FormatUint(bucket, 10) + "}"
}

// claim notes what targets the devices have now, and returns the devices that have lost theirs. The devices must have been
// stored: so of two that claim a target at once, whichever comes second finds the other.
func (g *Registry) claim(ctx context.Context, states []state) ([]*pb.DeviceGone, error) {
	var holders []*redis.Cmd
	var claimed []*pb.Device
	run := func() error {
		holders, claimed = holders[:0], claimed[:0]
		pipe := g.redis.Pipeline()
		for _, s := range states {
			before, now := s.before.GetTarget(), s.now.GetTarget()
			if before.GetKind() != nil && !proto.Equal(before, now) {
				hash := schemas.TargetHash(before)
				claimScript.EvalSha(ctx, pipe, []string{g.targetKey(s.app, hash)}, hash, s.id, "")
			}
			if now.GetKind() != nil {
				hash := schemas.TargetHash(now)
				holders = append(holders, claimScript.EvalSha(ctx, pipe, []string{g.targetKey(s.app, hash)}, hash, s.id, s.now.RegisteredAt))
				claimed = append(claimed, s.now)
			}
		}
		return exec(ctx, pipe)
	}
	err := run()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = claimScript.Load(ctx, g.redis).Err(); err == nil {
			err = run()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("claim targets: %w", err)
	}
	var moved []*pb.DeviceGone
	for i, h := range holders {
		text, _ := h.Text() // exec has seen that none failed
		if gone := loser(claimed[i], text); gone != nil {
			moved = append(moved, gone)
		}
	}
	return moved, nil
}

// loser tells which of two devices has a target no more: d, or the one that holds it, as it lies in Redis.
func loser(d *pb.Device, holder string) *pb.DeviceGone {
	at, other, ok := strings.Cut(holder, ":")
	since, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || other == d.Id {
		return nil
	}
	gone := &pb.DeviceGone{App: d.App, Id: other, At: d.RegisteredAt, Code: codeMoved, Target: schemas.TargetHash(d.Target)}
	lost := since
	if since > d.RegisteredAt || since == d.RegisteredAt && other > d.Id {
		gone.Id, gone.At, lost = d.Id, since, d.RegisteredAt
	}
	gone.At = max(gone.At, lost+1) // registered in the same millisecond
	return gone
}
