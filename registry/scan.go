package registry

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// scanBatch is how many devices one fetch brings, about, and scanAhead how many fetches lie ready for fn: with them
	// a scan holds some 5 MB.
	scanBatch = 4096
	scanAhead = 2
	// A shard above wholeShard is read in pieces of scanPiece, so that neither Redis nor we hold it at once.
	wholeShard = 4096
	scanPiece  = 1000
)

// Scan calls fn with each of an app's devices of one platform in the shards [first, end), in no order, in bounded memory,
// reading ahead while fn works. A device that is there from beginning to end is met, and met once. It is fn's to keep. It
// ends with fn's first error, or with ErrNotBuilt when the view was replaced meanwhile: then what was seen may be a part.
func (g *Registry) Scan(ctx context.Context, app string, p pb.Platform, first, end uint32, fn func(*pb.Device) error) error {
	if first >= end {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := scan{g: g, app: app, platform: p, first: first, end: end, batches: make(chan []string, scanAhead)}
	fetched := make(chan error, 1)
	go func() {
		defer close(s.batches)
		fetched <- s.fetch(ctx)
	}()
	defer func() {
		cancel()
		for range s.batches { // the fetcher is gone when this ends
		}
	}()
	for values := range s.batches {
		for _, v := range values {
			d := new(pb.Device)
			if err := decodeDevice(v, d); err != nil {
				return fmt.Errorf("scan devices of %s: %w", app, err)
			}
			if err := fn(d); err != nil {
				return err
			}
		}
	}
	if err := <-fetched; err != nil {
		return fmt.Errorf("scan devices of %s: %w", app, err)
	}
	return nil
}

// scan is one call of Scan.
type scan struct {
	g          *Registry
	app        string
	platform   pb.Platform
	first, end uint32
	batches    chan []string
}

func (s *scan) fetch(ctx context.Context) error {
	sizes, began, err := s.g.sizes(ctx, s.app, s.platform, s.first, s.end)
	if err != nil {
		return err
	}
	var small []string // keys that go into the next pipeline
	var waiting uint32 // devices under them
	flush := func() error {
		values, err := s.whole(ctx, small)
		if err != nil {
			return err
		}
		small, waiting = small[:0], 0
		return s.give(ctx, values)
	}
	for i, n := range sizes {
		key := s.g.shardKey(s.app, s.first+uint32(i), s.platform)
		switch {
		case n == 0:
			continue
		case n > wholeShard:
			err = s.pieces(ctx, key)
		default:
			small, waiting = append(small, key), waiting+n
			if waiting >= scanBatch {
				err = flush()
			}
		}
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	ended, err := s.g.read(ctx, func(redis.Pipeliner) {})
	if err == nil && ended != began {
		err = ErrNotBuilt
	}
	return err
}

func (s *scan) give(ctx context.Context, values []string) error {
	if len(values) == 0 {
		return nil
	}
	select {
	case s.batches <- values:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whole reads shards in one round trip. The values suffice: a device names itself.
func (s *scan) whole(ctx context.Context, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	pipe := s.g.redis.Pipeline()
	cmds := make([]*redis.StringSliceCmd, len(keys))
	for i, k := range keys {
		cmds[i] = pipe.HVals(ctx, k)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, err
	}
	if len(cmds) == 1 {
		return cmds[0].Val(), nil
	}
	values := make([]string, 0, scanBatch)
	for _, c := range cmds {
		values = append(values, c.Val()...)
	}
	return values, nil
}

// pieces reads a large shard bit by bit. Redis may give a field twice while the hash grows or shrinks.
func (s *scan) pieces(ctx context.Context, key string) error {
	seen := make(map[string]struct{}, wholeShard)
	for cursor := uint64(0); ; {
		pairs, next, err := s.g.redis.HScan(ctx, key, cursor, "", scanPiece).Result()
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		values := make([]string, 0, len(pairs)/2)
		for i := 0; i+1 < len(pairs); i += 2 {
			if _, twice := seen[pairs[i]]; !twice {
				seen[pairs[i]] = struct{}{}
				values = append(values, pairs[i+1])
			}
		}
		if err := s.give(ctx, values); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
