package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

var (
	// ErrNotFound says that the app has no such device.
	ErrNotFound = errors.New("device not found")
	// ErrNotBuilt says that the view in Redis is missing, being rebuilt, or was replaced while it was read. Nothing can
	// be concluded from what it holds, least of all that somebody has no device. It passes: try again.
	ErrNotBuilt = errors.New("the registry in Redis is not complete yet; it is rebuilt from Kafka by itself, or by belfry rebuild")
)

// readBatch bounds one pipeline of reads: about 300 KB of devices.
const readBatch = 1000

// Registry is the devices as Redis holds them. Safe for concurrent use.
type Registry struct {
	redis *Redis
}

// New makes a registry of what lies in r under r's prefix.
func New(r *Redis) *Registry { return &Registry{redis: r} }

// shardKey names the hash of an app's devices of one platform in one shard: device id → packed pb.Device. What is in
// braces picks the cluster slot, so a shard's three platforms lie together.
func (g *Registry) shardKey(app string, shard uint32, p pb.Platform) string {
	return g.devicesKey() + "{" + app + ":" + strconv.FormatUint(uint64(shard), 10) + "}:" + schemas.PlatformName(p)
}

// userKey names the hash of a user's devices: device id → platform. It may name devices that are the user's no more:
// the device has the last word.
func (g *Registry) userKey(app, user string) string {
	return g.devicesKey() + "{" + app + ":user:" + user + "}"
}

// Get finds one device, or ErrNotFound.
func (g *Registry) Get(ctx context.Context, app, device string) (*pb.Device, error) {
	found, err := g.Devices(ctx, app, []string{device})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	return found[0], nil
}

// UserDevices finds a user's devices, in no order. A user that is not known has none.
func (g *Registry) UserDevices(ctx context.Context, app, user string) ([]*pb.Device, error) {
	var ids *redis.StringSliceCmd
	if _, err := g.read(ctx, func(p redis.Pipeliner) { ids = p.HKeys(ctx, g.userKey(app, user)) }); err != nil {
		return nil, fmt.Errorf("find the user's devices: %w", err)
	}
	found, err := g.Devices(ctx, app, ids.Val())
	if err != nil {
		return nil, err
	}
	n := 0
	for _, d := range found {
		if d.User == user {
			found[n], n = d, n+1
		}
	}
	return found[:n], nil
}

// Devices finds those of the devices that there are, in the order of ids.
func (g *Registry) Devices(ctx context.Context, app string, ids []string) ([]*pb.Device, error) {
	found := make([]*pb.Device, 0, len(ids))
	for len(ids) > 0 {
		batch := ids[:min(len(ids), readBatch)]
		ids = ids[len(batch):]
		gets := make([]stored, len(batch))
		_, err := g.read(ctx, func(p redis.Pipeliner) {
			for i, id := range batch {
				gets[i] = g.load(ctx, p, app, id)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("find devices: %w", err)
		}
		for i := range gets {
			d, err := gets[i].device()
			if err != nil {
				return nil, fmt.Errorf("device %s/%s: %w", app, batch[i], err)
			}
			if d != nil {
				found = append(found, d)
			}
		}
	}
	return found, nil
}

// ShardSizes tells how many devices of a platform each of the schemas.Shards shards of an app holds.
func (g *Registry) ShardSizes(ctx context.Context, app string, p pb.Platform) ([]uint32, error) {
	sizes, _, err := g.sizes(ctx, app, p, 0, schemas.Shards)
	return sizes, err
}

// sizes is ShardSizes of the shards [first, end), with the build that they were counted in.
func (g *Registry) sizes(ctx context.Context, app string, p pb.Platform, first, end uint32) ([]uint32, string, error) {
	lens := make([]*redis.IntCmd, end-first)
	build, err := g.read(ctx, func(pipe redis.Pipeliner) {
		for i := range lens {
			lens[i] = pipe.HLen(ctx, g.shardKey(app, first+uint32(i), p))
		}
	})
	if err != nil {
		return nil, "", fmt.Errorf("count devices: %w", err)
	}
	sizes := make([]uint32, len(lens))
	for i, n := range lens {
		sizes[i] = uint32(n.Val())
	}
	return sizes, build, nil
}

// CountDevices tells how many devices an app has on each platform.
func (g *Registry) CountDevices(ctx context.Context, app string) (map[pb.Platform]uint64, error) {
	counts := make(map[pb.Platform]uint64, len(schemas.Platforms))
	for _, p := range schemas.Platforms {
		sizes, err := g.ShardSizes(ctx, app, p)
		if err != nil {
			return nil, err
		}
		for _, n := range sizes {
			counts[p] += uint64(n)
		}
	}
	return counts, nil
}
