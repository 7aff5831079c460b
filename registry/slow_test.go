package registry_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/stream/streamtest"
)

// slow has a Redis answer no pipeline in time that is longer than so many commands.
type slow struct {
	most atomic.Int64
	late atomic.Int64 // pipelines that were too long
}

func (s *slow) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (s *slow) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (s *slow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if most := s.most.Load(); most == 0 || len(cmds) <= int(most) {
			return next(ctx, cmds)
		}
		s.late.Add(1)
		for _, c := range cmds {
			c.SetErr(os.ErrDeadlineExceeded)
		}
		return os.ErrDeadlineExceeded
	}
}

// A Redis that is too slow for as much as waits is asked for less, by appliers and by a rebuild: else it would never be done.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	const devices = 100
	k := streamtest.Kafka(t)
	k.Log = slog.New(slog.DiscardHandler)
	r := registrytest.Redis(t)
	s := &slow{}
	t.Cleanup(func() { s.most.Store(0) }) // what is left is removed at once
	r.AddHook(s)
	g := registry.New(r)
	var all []record
	for i := range devices {
		all = append(all, registered(t, device(fmt.Sprint("d", i), apns)))
	}
	produce(t, k, all...)
	there := func() bool {
		for i := range devices {
			if !has(t, g, fmt.Sprint("d", i))() {
				return false
			}
		}
		return true
	}

	s.most.Store(8) // two devices and the view's mark
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := registry.Rebuild(ctx, k, g, nil); err != nil {
		t.Fatal(err)
	}
	if s.late.Load() == 0 || !there() {
		t.Errorf("%d pipelines were too long for the rebuild, and all devices are there: %t", s.late.Load(), there())
	}

	s.most.Store(0)
	if err := r.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := registry.Rebuild(t.Context(), streamtest.Kafka(t), g, nil); err != nil {
		t.Fatal(err)
	}
	s.most.Store(8)
	s.late.Store(0)
	run(t, k, g)
	eventually(t, "all is applied", there)
	if s.late.Load() == 0 {
		t.Error("no pipeline was too long for the applier")
	}
}
