package fanout

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// chunkDevices is how many devices a chunk should hold: enough that a transaction is worth its markers, few enough
	// that a chunk's deliveries fit in memory many times over.
	chunkDevices = 5000
	// A paced campaign's chunks hold about a second's worth, and not fewer than this.
	minChunkDevices = 100
	// maxListSlice bounds a chunk that lists its devices, whose ids it carries: 130 KB at most.
	maxListSlice = 1000
	// userLookups is how many users are looked up at once.
	userLookups = 16
)

// cutChunks slices a campaign's audience, as the registry knows it now, into chunks by platform. A platform without
// devices has none.
func cutChunks(ctx context.Context, g *registry.Registry, c *pb.Campaign) (map[pb.Platform][]*pb.Chunk, error) {
	size := chunkSize(c.Pace.GetPerSecond())
	platforms := schemas.Platforms
	if len(c.Audience.Platforms) > 0 {
		platforms = c.Audience.Platforms
	}
	chunks := map[pb.Platform][]*pb.Chunk{}
	if len(c.Audience.Devices)+len(c.Audience.Users) > 0 {
		listed, err := listed(ctx, g, c)
		if err != nil {
			return nil, err
		}
		for _, p := range platforms {
			chunks[p] = sliceList(listed[p], min(size, maxListSlice))
		}
	} else {
		for _, p := range platforms {
			sizes, err := g.ShardSizes(ctx, c.App, p)
			if err != nil {
				return nil, err
			}
			chunks[p] = sliceShards(sizes, size)
		}
	}
	for p, of := range chunks {
		for i, chunk := range of {
			chunk.App, chunk.Run, chunk.Platform = c.App, c.Id, p
			chunk.Index, chunk.Total = uint32(i), uint32(len(of))
		}
	}
	return chunks, nil
}

func chunkSize(perSecond float64) int {
	if perSecond == 0 {
		return chunkDevices
	}
	return int(min(chunkDevices, max(minChunkDevices, perSecond)))
}

// sliceShards cuts the shards into ranges that hold about size devices each. Together they cover every shard, also those
// that are empty now: who registers until the chunk is expanded is met.
func sliceShards(sizes []uint32, size int) []*pb.Chunk {
	var chunks []*pb.Chunk
	first, held := 0, 0
	for shard, n := range sizes {
		if held > 0 && held+int(n) > size {
			chunks = append(chunks, &pb.Chunk{FirstShard: uint32(first), EndShard: uint32(shard), Estimate: uint32(held)})
			first, held = shard, 0
		}
		held += int(n)
	}
	switch {
	case held > 0:
		chunks = append(chunks, &pb.Chunk{FirstShard: uint32(first), Estimate: uint32(held)})
	case len(chunks) == 0:
		return nil
	}
	chunks[len(chunks)-1].EndShard = uint32(len(sizes))
	return chunks
}

func sliceList(devices []string, size int) []*pb.Chunk {
	var chunks []*pb.Chunk
	for slice := range slices.Chunk(devices, size) {
		chunks = append(chunks, &pb.Chunk{Devices: slice, Estimate: uint32(len(slice))})
	}
	return chunks
}

// listed finds the devices that an audience lists, or whose users it lists, each once, by platform.
func listed(ctx context.Context, g *registry.Registry, c *pb.Campaign) (map[pb.Platform][]string, error) {
	found, err := g.Devices(ctx, c.App, c.Audience.Devices)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards found
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(userLookups)
	for _, user := range c.Audience.Users {
		group.Go(func() error {
			devices, err := g.UserDevices(ctx, c.App, user)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, devices...)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(found))
	byPlatform := map[pb.Platform][]string{}
	for _, d := range found {
		if !seen[d.Id] {
			seen[d.Id] = true
			byPlatform[d.Platform] = append(byPlatform[d.Platform], d.Id)
		}
	}
	return byPlatform, nil
}

// chunkOutputs are the chunks as records.
func chunkOutputs(chunks map[pb.Platform][]*pb.Chunk) ([]stream.Output, error) {
	var outs []stream.Output
	for p, of := range chunks {
		for _, chunk := range of {
			value, err := proto.Marshal(chunk)
			if err != nil {
				return nil, fmt.Errorf("encode chunk %d of campaign %s: %w", chunk.Index, chunk.Run, err)
			}
			outs = append(outs, stream.Output{
				Topic: schemas.TopicChunks(p),
				Key:   schemas.Key(chunk.App, chunk.Run, strconv.FormatUint(uint64(chunk.Index), 10)),
				Value: value,
			})
		}
	}
	return outs, nil
}
