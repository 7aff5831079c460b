// Package registrytest gives tests a Redis: a real one where BELFRY_TEST_REDIS names it (host:port, or several nodes of a
// cluster), else the embedded one. Each test has its own prefix, so tests run side by side on one server. The two
// functions to know are Redis and Registry; Each is for what must hold on a cluster too.
package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Redis returns an empty Redis for one test. What the test leaves on a real one is removed when it ends.
func Redis(t testing.TB) *registry.Redis {
	t.Helper()
	return open(t, os.Getenv("BELFRY_TEST_REDIS"))
}

// Each runs a test on Redis, and where BELFRY_TEST_REDIS_CLUSTER names the nodes of one, on a cluster.
func Each(t *testing.T, test func(t *testing.T, r *registry.Redis)) {
	t.Run("redis", func(t *testing.T) { test(t, Redis(t)) })
	if nodes := os.Getenv("BELFRY_TEST_REDIS_CLUSTER"); nodes != "" {
		t.Run("cluster", func(t *testing.T) { test(t, open(t, nodes)) })
	}
}

func open(t testing.TB, addresses string) *registry.Redis {
	t.Helper()
	c := registry.RedisConfig{Prefix: fmt.Sprintf("t%08x:", rand.Uint32())}
	if addresses != "" {
		c.Addresses = strings.Split(addresses, ",")
		c.Cluster = len(c.Addresses) > 1
	}
	r, err := registry.OpenRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !r.Embedded {
			remove(t, r)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Registry returns a registry that is complete and holds the devices, without a Kafka behind it.
func Registry(t testing.TB, r *registry.Redis, devices ...*pb.Device) *registry.Registry {
	t.Helper()
	g := registry.New(r)
	if err := r.Set(t.Context(), r.Prefix+"{registry}:built", "test", 0).Err(); err != nil {
		t.Fatal(err)
	}
	Put(t, g, devices...)
	return g
}

// Put registers devices.
func Put(t testing.TB, g *registry.Registry, devices ...*pb.Device) {
	t.Helper()
	var changes []registry.Change
	for _, d := range devices {
		key, value := Record(t, d)
		c, _, err := registry.DecodeChange(key, value)
		if err != nil {
			t.Fatal(err)
		}
		if changes = append(changes, c); len(changes) == 1000 {
			apply(t, g, changes)
			changes = changes[:0]
		}
	}
	apply(t, g, changes)
}

func apply(t testing.TB, g *registry.Registry, changes []registry.Change) {
	t.Helper()
	if _, err := g.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
}

// Record is a device's registration as it lies on belfry.devices.
func Record(t testing.TB, d *pb.Device) (key, value []byte) {
	t.Helper()
	value, err := proto.Marshal(&pb.DeviceRecord{Kind: &pb.DeviceRecord_Device{Device: d}})
	if err != nil {
		t.Fatal(err)
	}
	return schemas.DeviceKey(d.App, d.Id), value
}

func remove(t testing.TB, r *registry.Redis) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.RemoveAll(ctx); err != nil {
		t.Errorf("remove the test's keys: %v", err)
	}
}
