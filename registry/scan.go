package registry

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// scanBatch is how many devices one fetch brings, about, and scanAhead how many fetches lie ready for fn.
	scanBatch = 1024
	scanAhead = 2
	// A shard above wholeShard is read in pieces of scanPiece, so that neither Redis nor we hold it at once.
	wholeShard = 4096
	scanPiece  = 1000
)

// Scan calls fn with each of an app's devices of one platform in the shards [first, end), in no order, in bounded memory,
// reading ahead while fn works. A device that is there from beginning to end is met, and met once. It ends with fn's first
// error, or with ErrNotBuilt when the view was replaced meanwhile: then what was seen may be a part.
func (g *Registry) Scan(ctx context.Context, app string, p pb.Platform, first, end uint32, w Wanted, fn func(*Row) error) error {
	if first >= end {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := scan{g: g, app: app, platform: p, first: first, end: end, pages: make(chan *page, scanAhead)}
	fetched := make(chan error, 1)
	go func() {
		defer close(s.pages)
		fetched <- s.fetch(ctx)
	}()
	defer func() {
		cancel()
		for range s.pages { // the fetcher is gone when this ends
		}
	}()
	row := newRow(w)
	each := func(value []byte) error {
		if err := row.decode(value); err != nil {
			return fmt.Errorf("scan devices of %s: %w", app, err)
		}
		return fn(row)
	}
	for page := range s.pages {
		if err := page.each(each); err != nil {
			return err
		}
		page.free()
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
	pages      chan *page
}

func (s *scan) fetch(ctx context.Context) error {
	sizes, began, err := s.g.sizes(ctx, s.app, s.platform, s.first, s.end)
	if err != nil {
		return err
	}
	var small []string // keys that go into the next pipeline
	var waiting uint32 // devices under them
	flush := func() error {
		page, err := s.whole(ctx, small)
		if err != nil {
			return err
		}
		small, waiting = small[:0], 0
		return s.give(ctx, page)
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

func (s *scan) give(ctx context.Context, p *page) error {
	select {
	case s.pages <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whole reads shards in one round trip. The values suffice: a device names itself.
func (s *scan) whole(ctx context.Context, keys []string) (*page, error) {
	p := pages.Get().(*page)
	if len(keys) == 0 {
		return p, nil
	}
	pipe := s.g.redis.Pipeline()
	for _, k := range keys {
		// A writer for each: a cluster's nodes answer side by side.
		_ = pipe.Process(ctx, redis.NewRawWriteToCmd(ctx, p.next(), "hvals", k))
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, err
	}
	for i, r := range p.replies[:p.n] {
		if !r.refused() {
			continue
		}
		// The library did not look at the answer, which may be a cluster's word that the shard has moved. Now it does.
		values, err := s.g.redis.HVals(ctx, keys[i]).Result()
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		p.values = append(p.values, values...)
		r.reset()
	}
	return p, nil
}

// pieces reads a large shard bit by bit. Redis may give a field twice while the hash grows or shrinks.
func (s *scan) pieces(ctx context.Context, key string) error {
	seen := make(map[string]struct{}, wholeShard)
	for cursor := uint64(0); ; {
		pairs, next, err := s.g.redis.HScan(ctx, key, cursor, "", scanPiece).Result()
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		p := pages.Get().(*page)
		for i := 0; i+1 < len(pairs); i += 2 {
			if _, twice := seen[pairs[i]]; !twice {
				seen[pairs[i]] = struct{}{}
				p.values = append(p.values, pairs[i+1])
			}
		}
		if err := s.give(ctx, p); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
