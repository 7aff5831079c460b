package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// devicesKey is before all keys that a rebuild makes anew; the other keys under Redis.Prefix are not the registry's.
func (g *Registry) devicesKey() string { return g.redis.Prefix + "devices:" }

// builtKey holds the name of the build that filled the view. It is there only while the view is complete, and it goes
// with the rest when Redis loses its memory, so that nobody takes an empty Redis for an app without devices.
func (g *Registry) builtKey() string { return g.redis.Prefix + "{registry}:built" }

// lockKey holds the name of the build under way. The braces keep it in one cluster slot with builtKey.
func (g *Registry) lockKey() string { return g.redis.Prefix + "{registry}:lock" }

// Built tells whether the view is complete.
func (g *Registry) Built(ctx context.Context) (bool, error) {
	_, err := g.build(ctx)
	if errors.Is(err, ErrNotBuilt) {
		return false, nil
	}
	return err == nil, err
}

// noReads asks for nothing but the mark.
func noReads(redis.Pipeliner) {}

// read runs one pipeline of reads on a complete view and names the build of it. The mark is read before and after: a
// rebuild that begins between the two takes it away before it removes anything.
func (g *Registry) read(ctx context.Context, queue func(redis.Pipeliner)) (build string, err error) {
	pipe := g.redis.Pipeline()
	before := pipe.Get(ctx, g.builtKey())
	queue(pipe)
	after := pipe.Get(ctx, g.builtKey())
	if err := exec(ctx, pipe); err != nil {
		return "", err
	}
	if _, cluster := g.redis.UniversalClient.(*redis.ClusterClient); cluster {
		// A cluster's nodes answer their parts of a pipeline side by side, so only a call of its own comes after them.
		if after = g.redis.Get(ctx, g.builtKey()); after.Err() != nil && !errors.Is(after.Err(), redis.Nil) {
			return "", fmt.Errorf("redis: %w", after.Err())
		}
	}
	if before.Err() != nil || after.Err() != nil || before.Val() != after.Val() {
		return "", ErrNotBuilt
	}
	return before.Val(), nil
}

// exec sends a pipeline. What is not found is no error.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	cmds, _ := pipe.Exec(ctx) // returns the first error only, which may be a redis.Nil before a real one
	for _, c := range cmds {
		if err := c.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("redis: %w", err)
		}
	}
	return nil
}
