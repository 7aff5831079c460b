package registry_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestSoundTellsOfARedisThatCannotHoldDevices(t *testing.T) {
	r := registrytest.Server(t)
	sound := func(want string) {
		t.Helper()
		switch err := r.Sound(t.Context()); {
		case want == "" && err != nil:
			t.Errorf("got %v", err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("got %v, want %q", err, want)
		}
	}
	set := func(args ...any) {
		t.Helper()
		if err := r.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	sound("")
	set("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	sound("") // without a bound on its memory it drops nothing
	set("CONFIG", "SET", "maxmemory", "100mb")
	sound("maxmemory-policy allkeys-lru")
	set("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
	sound("")
	set("CONFIG", "SET", "maxmemory-policy", "noeviction")
	sound("")
	set("CONFIG", "SET", "maxmemory", "1")
	sound("raise maxmemory")
	set("CONFIG", "SET", "maxmemory", "0")
	sound("")
	set("REPLICAOF", "127.0.0.1", "1")
	sound("it is a replica")
	set("REPLICAOF", "NO", "ONE")
	sound("")
}

// follow runs a follower of where the registry is until it has read what is said.
func follow(t *testing.T, p *registry.Place) {
	t.Helper()
	streamtest.Run(t, p.Run)
	<-p.Ready()
}

func TestWhoReadsElsewhereIsTold(t *testing.T) {
	k := streamtest.Kafka(t)
	kept, elsewhere := registrytest.Redis(t), registrytest.Redis(t)
	place := registry.NewPlace(k)
	follow(t, place)
	g := registry.New(kept)
	if err := registry.New(elsewhere).Sound(t.Context(), place); err != registry.ErrNotBuilt {
		t.Errorf("before anybody said anything: %v", err)
	}
	if err := registry.Rebuild(t.Context(), k, g, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it says so", func() bool {
		err := registry.New(elsewhere).Sound(t.Context(), place)
		return err != nil && strings.Contains(err.Error(), kept.Prefix) && strings.Contains(err.Error(), elsewhere.Prefix)
	})
	if err := g.Sound(t.Context(), place); err != nil {
		t.Errorf("where it is kept: %v", err)
	}
	// The same prefix in another Redis, which somebody filled once.
	elsewhere.Prefix = kept.Prefix
	if elsewhere.Embedded {
		registrytest.Registry(t, elsewhere)
		if err := registry.New(elsewhere).Sound(t.Context(), place); err == nil || !strings.Contains(err.Error(), "redis.addresses") {
			t.Errorf("in another Redis: %v", err)
		}
	}
}

// TestAnApplierSaysWhereItKeeps: what an earlier release built is told, and one that keeps it elsewhere says so.
func TestAnApplierSaysWhereItKeeps(t *testing.T) {
	k := streamtest.Kafka(t)
	first, second := registrytest.Redis(t), registrytest.Redis(t)
	place := registry.NewPlace(k)
	follow(t, place)
	one := *k
	one.Instance = "one"
	g := registrytest.Registry(t, first)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- registry.NewApplier(&one, g).Run(ctx) }()
	eventually(t, "it says so", func() bool {
		err := registry.New(second).Sound(t.Context(), place)
		return err != nil && strings.Contains(err.Error(), "instance one")
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	two, log := *k, new(said)
	two.Instance, two.Log = "two", slog.New(slog.NewTextHandler(log, nil))
	streamtest.Run(t, registry.NewApplier(&two, registrytest.Registry(t, second)).Run)
	eventually(t, "it says so", func() bool { return registry.New(second).Sound(t.Context(), place) == nil })
	if n := log.count("other_instance=one"); n != 1 {
		t.Errorf("it said %d times that another keeps it elsewhere", n)
	}
}
