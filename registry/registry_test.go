package registry_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	apns    = pb.Platform_PLATFORM_APNS
	fcm     = pb.Platform_PLATFORM_FCM
	webpush = pb.Platform_PLATFORM_WEBPUSH
)

func device(id string, p pb.Platform) *pb.Device {
	return &pb.Device{App: "shop", Id: id, Platform: p, User: "u-" + id, Locale: "fr-CA", AppVersion: "3.2.1", RegisteredAt: 1000}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if diff := gocmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("got (+) is not what was wanted (-):\n%s", diff)
	}
}

func TestLookups(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		ctx := t.Context()
		phone, tablet, laptop := device("phone", apns), device("tablet", fcm), device("laptop", webpush)
		phone.User, tablet.User = "ann", "ann"
		other := device("phone", fcm)
		other.App = "news"
		g := registrytest.Registry(t, r, phone, tablet, laptop, other)

		got, err := g.Get(ctx, "shop", "phone")
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, phone)
		if _, err := g.Get(ctx, "shop", "radio"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("unknown device: %v", err)
		}
		list, err := g.Devices(ctx, "shop", []string{"laptop", "radio", "phone"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, list, []*pb.Device{laptop, phone})
		anns, err := g.UserDevices(ctx, "shop", "ann")
		if err != nil {
			t.Fatal(err)
		}
		same(t, byID(anns), []*pb.Device{phone, tablet})
		nobodys, err := g.UserDevices(ctx, "shop", "nobody")
		if err != nil || len(nobodys) != 0 {
			t.Errorf("devices of nobody: %v, %v", nobodys, err)
		}
		counts, err := g.CountDevices(ctx, "shop")
		if err != nil {
			t.Fatal(err)
		}
		same(t, counts, map[pb.Platform]uint64{apns: 1, fcm: 1, webpush: 1})
		sizes, err := g.ShardSizes(ctx, "shop", apns)
		if err != nil {
			t.Fatal(err)
		}
		if len(sizes) != schemas.Shards || sizes[schemas.Shard("phone")] != 1 {
			t.Errorf("%d shards, that of the phone holds %d", len(sizes), sizes[schemas.Shard("phone")])
		}
	})
}

func byID(devices []*pb.Device) []*pb.Device {
	slices.SortFunc(devices, func(a, b *pb.Device) int { return cmp.Compare(a.Id, b.Id) })
	return devices
}

// crowded makes n ids that all fall into one shard.
func crowded(n int, shard uint32) []string {
	ids := make([]string, 0, n)
	for i := 0; len(ids) < n; i++ {
		if id := strconv.Itoa(i); schemas.Shard(id) == shard {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestScanMeetsEachDeviceOnce(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		want := map[string]int{}
		var devices []*pb.Device
		add := func(id string) {
			devices = append(devices, device(id, apns))
			want[id] = 1
		}
		for i := range 6000 {
			add("d" + strconv.Itoa(i))
		}
		// More than a shard may hold to be read whole.
		for _, id := range crowded(4500, 7) {
			add(id)
		}
		devices = append(devices, device("elsewhere", fcm))
		g := registrytest.Registry(t, r, devices...)

		got := map[string]int{}
		for first := uint32(0); first < schemas.Shards; first += 1000 {
			end := min(first+1000, schemas.Shards)
			err := g.Scan(t.Context(), "shop", apns, first, end, registry.Wanted{}, func(r *registry.Row) error {
				d := &r.Device
				if s := schemas.Shard(d.Id); s < first || s >= end {
					t.Errorf("device of shard %d in [%d, %d)", s, first, end)
				}
				got[strings.Clone(d.Id)]++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("met %d devices, there are %d", len(got), len(want))
		}
	})
}

func TestScanEndsWithItsCaller(t *testing.T) {
	var devices []*pb.Device
	for i := range 30000 {
		devices = append(devices, device("d"+strconv.Itoa(i), apns))
	}
	g := registrytest.Registry(t, registrytest.Redis(t), devices...)
	enough := errors.New("enough")
	if err := g.Scan(t.Context(), "shop", apns, 0, schemas.Shards, registry.Wanted{}, func(*registry.Row) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a scan whose function failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	met := 0
	err := g.Scan(ctx, "shop", apns, 0, schemas.Shards, registry.Wanted{}, func(*registry.Row) error {
		met++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a scan whose context ended: %v", err)
	}
	if met == len(devices) {
		t.Error("it went on to the end")
	}
	if err := g.Scan(t.Context(), "shop", apns, 5, 5, registry.Wanted{}, func(*registry.Row) error { return enough }); err != nil {
		t.Errorf("a scan of no shard: %v", err)
	}
}

// An empty Redis must never look like an app without devices.
func TestReadsFailUntilBuilt(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		ctx := t.Context()
		g := registry.New(r)
		nothing := func(*registry.Row) error { return nil }
		for name, read := range map[string]func() error{
			"Get":          func() error { _, err := g.Get(ctx, "shop", "d"); return err },
			"Devices":      func() error { _, err := g.Devices(ctx, "shop", []string{"d"}); return err },
			"UserDevices":  func() error { _, err := g.UserDevices(ctx, "shop", "u"); return err },
			"ShardSizes":   func() error { _, err := g.ShardSizes(ctx, "shop", apns); return err },
			"CountDevices": func() error { _, err := g.CountDevices(ctx, "shop"); return err },
			"Scan":         func() error { return g.Scan(ctx, "shop", apns, 0, schemas.Shards, registry.Wanted{}, nothing) },
		} {
			if err := read(); !errors.Is(err, registry.ErrNotBuilt) {
				t.Errorf("%s on an empty Redis: %v", name, err)
			}
		}
	})
}

func TestScanNoticesThatItsViewWasReplaced(t *testing.T) {
	r := registrytest.Redis(t)
	g := registrytest.Registry(t, r, device("a", apns))
	err := g.Scan(t.Context(), "shop", apns, 0, schemas.Shards, registry.Wanted{}, func(*registry.Row) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var devices []*pb.Device
	for i := range 50000 {
		devices = append(devices, device(fmt.Sprint("d", i), apns))
	}
	registrytest.Put(t, g, devices...)
	replaced := false
	err = g.Scan(t.Context(), "shop", apns, 0, schemas.Shards, registry.Wanted{}, func(*registry.Row) error {
		if !replaced {
			replaced = true
			// Another Redis, as far as readers can tell: what a restart without memory and a rebuild leave.
			return r.Set(t.Context(), r.Prefix+"{registry}:built", "another", 0).Err()
		}
		return nil
	})
	if !errors.Is(err, registry.ErrNotBuilt) {
		t.Errorf("a scan over two views: %v", err)
	}
}

func TestOpenRedisRefuses(t *testing.T) {
	for name, c := range map[string]registry.RedisConfig{
		"several addresses without cluster": {Addresses: []string{"a:1", "b:1"}},
		"a cluster without addresses":       {Cluster: true},
		"a prefix with braces":              {Prefix: "{x}:"},
		"a prefix with a pattern":           {Prefix: "b*:"},
	} {
		if r, err := registry.OpenRedis(c); err == nil {
			r.Close()
			t.Errorf("%s was taken", name)
		}
	}
}
