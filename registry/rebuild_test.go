package registry_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestRebuild(t *testing.T) {
	t.Parallel()
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		ctx := t.Context()
		k := streamtest.Kafka(t)
		const devices = 3000
		client := streamtest.Client(t, k)
		for i := range devices {
			key, value := registrytest.Record(t, device(strconv.Itoa(i), schemas.Platforms[i%3]))
			client.Produce(ctx, &kgo.Record{Topic: k.Topic(schemas.TopicDevices), Key: key, Value: value}, nil)
		}
		if err := client.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		produce(t, k, removed("1"), gone(t, "2", 5000), record{key: []byte("?"), value: []byte("?")})

		g := registrytest.Registry(t, r, device("left from before", apns))
		// What is not the registry's stays.
		if err := r.Set(ctx, r.Prefix+"accounts", "kept", 0).Err(); err != nil {
			t.Fatal(err)
		}
		var done, total int64
		progress := func(d, of int64) { done, total = d, of }
		if err := registry.Rebuild(ctx, k, g, progress); err != nil {
			t.Fatal(err)
		}
		if done != devices+3 || total != devices+3 {
			t.Errorf("progress ended at %d of %d records, of %d", done, total, devices+3)
		}
		counts, err := g.CountDevices(ctx, "shop")
		if err != nil {
			t.Fatal(err)
		}
		if n := counts[apns] + counts[fcm] + counts[webpush]; n != devices-2 {
			t.Errorf("%d devices, want %d", n, devices-2)
		}
		if _, err := g.Get(ctx, "shop", "left from before"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("what Kafka does not know: %v", err)
		}
		if v := r.Get(ctx, r.Prefix+"accounts").Val(); v != "kept" {
			t.Error("a rebuild of the registry removed what is not the registry's")
		}
	})
}

// While one rebuilds a view that was complete, nobody else does, and nobody reads what is there of it.
func TestOnlyOneRebuilds(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	g := registrytest.Registry(t, registrytest.Redis(t), device("a", apns))
	produce(t, k, registered(t, device("a", apns)))
	var second error
	began := false
	err := registry.Rebuild(t.Context(), k, g, func(int64, int64) {
		began = true
		second = registry.Rebuild(t.Context(), k, g, nil)
		if _, err := g.Get(t.Context(), "shop", "a"); !errors.Is(err, registry.ErrNotBuilt) {
			t.Errorf("a read meanwhile: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !began || !errors.Is(second, registry.ErrRebuilding) {
		t.Errorf("a second rebuild meanwhile: %v", second)
	}
	if !has(t, g, "a")() {
		t.Error("the first did not finish its work")
	}
}

// A rebuild that is stopped leaves the view unbuilt, and the way free for the next.
func TestRebuildStopped(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	g := registry.New(registrytest.Redis(t))
	produce(t, k, registered(t, device("a", apns)), registered(t, device("b", apns)))
	ctx, cancel := context.WithCancel(t.Context())
	err := registry.Rebuild(ctx, k, g, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		// It may have been at its end already; then it is built.
		if err != nil {
			t.Fatal(err)
		}
	} else if built, err := g.Built(t.Context()); built || err != nil {
		t.Errorf("built after a stop: %v, %v", built, err)
	}
	if err := registry.Rebuild(t.Context(), k, g, nil); err != nil {
		t.Fatal(err)
	}
}

func TestRebuildWithoutKafkaKeepsTheView(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t, streamtest.Topic{Name: "other", Partitions: 1})
	g := registrytest.Registry(t, registrytest.Redis(t), device("a", apns))
	if err := registry.Rebuild(t.Context(), k, g, nil); err == nil {
		t.Error("it was rebuilt from a topic that does not exist")
	}
	if !has(t, g, "a")() {
		t.Error("a rebuild that could not begin removed the old view")
	}
}
