package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// record is one on belfry.devices.
type record struct {
	name       string
	key, value []byte
	apply      func(model map[string]*pb.Device) // what it must do
}

func registered(t testing.TB, d *pb.Device) record {
	key, value := registrytest.Record(t, d)
	return record{
		name: fmt.Sprintf("%s registers on %v for %s at %d", d.Id, d.Platform, d.User, d.RegisteredAt),
		key:  key, value: value,
		apply: func(m map[string]*pb.Device) { m[d.Id] = d },
	}
}

func removed(id string) record {
	return record{
		name:  id + " is removed",
		key:   schemas.DeviceKey("shop", id),
		apply: func(m map[string]*pb.Device) { delete(m, id) },
	}
}

func gone(t testing.TB, id string, at int64) record {
	return record{
		name:  fmt.Sprintf("%s is gone at %d", id, at),
		key:   schemas.DeviceGoneKey("shop", id),
		value: encode(t, &pb.DeviceRecord{Kind: &pb.DeviceRecord_Gone{Gone: &pb.DeviceGone{App: "shop", Id: id, At: at}}}),
		apply: func(m map[string]*pb.Device) {
			if d := m[id]; d != nil && d.RegisteredAt < at {
				delete(m, id)
			}
		},
	}
}

func apply(t testing.TB, g *registry.Registry, records []record) {
	t.Helper()
	var changes []registry.Change
	for _, r := range records {
		c, ok, err := registry.DecodeChange(r.key, r.value)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if ok {
			changes = append(changes, c)
		}
	}
	if _, err := g.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
}

// Whatever the history, however it is cut into batches, and from wherever a restart has it again: the registry ends as
// the history says, in every index.
func TestApplyFollowsTheHistory(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			view := &registry.Redis{UniversalClient: r.UniversalClient, Prefix: fmt.Sprintf("%s%d:", r.Prefix, runs)}
			g := registrytest.Registry(t, view)
			history := rapid.SliceOfN(drawRecord(t), 1, 25).Draw(rt, "history")
			model := map[string]*pb.Device{}
			for i := 0; i < len(history); {
				if i > 0 && rapid.IntRange(0, 5).Draw(rt, "restart") == 0 {
					apply(t, g, history[rapid.IntRange(0, i).Draw(rt, "from"):i])
				}
				end := rapid.IntRange(i+1, len(history)).Draw(rt, "end")
				apply(t, g, history[i:end])
				i = end
			}
			for _, rec := range history {
				rec.apply(model)
			}
			checkModel(t, rt, g, model)
		})
	})
}

func drawRecord(t testing.TB) *rapid.Generator[record] {
	return rapid.Custom(func(rt *rapid.T) record {
		id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "device")
		at := rapid.Int64Range(1, 9).Draw(rt, "at")
		switch rapid.IntRange(0, 5).Draw(rt, "kind") {
		case 0:
			return removed(id)
		case 1:
			return gone(t, id, at)
		}
		return registered(t, &pb.Device{
			App: "shop", Id: id, RegisteredAt: at,
			Platform: rapid.SampledFrom(schemas.Platforms).Draw(rt, "platform"),
			User:     rapid.SampledFrom([]string{"", "ann", "bob"}).Draw(rt, "user"),
		})
	})
}

func checkModel(t *testing.T, rt *rapid.T, g *registry.Registry, model map[string]*pb.Device) {
	var all []*pb.Device
	users := map[string][]*pb.Device{}
	counts := map[pb.Platform]uint64{apns: 0, fcm: 0, webpush: 0}
	for _, id := range []string{"a", "b", "c"} {
		if d := model[id]; d != nil {
			all = append(all, d)
			users[d.User] = append(users[d.User], d)
			counts[d.Platform]++
		}
	}
	got, err := g.Devices(t.Context(), "shop", []string{"a", "b", "c"})
	if err != nil {
		rt.Fatal(err)
	}
	equal(rt, "devices", got, append([]*pb.Device{}, all...))
	for _, user := range []string{"ann", "bob"} {
		got, err := g.UserDevices(t.Context(), "shop", user)
		if err != nil {
			rt.Fatal(err)
		}
		equal(rt, user+"'s devices", byID(got), users[user])
	}
	for p, want := range counts {
		var n uint64
		for _, id := range []string{"a", "b", "c"} {
			shard := schemas.Shard(id)
			err := g.Scan(t.Context(), "shop", p, shard, shard+1, registry.Wanted{}, func(*registry.Row) error { n++; return nil })
			if err != nil {
				rt.Fatal(err)
			}
		}
		if n != want {
			rt.Fatalf("%d devices on %v, want %d", n, p, want)
		}
	}
}

func equal(rt *rapid.T, what string, got, want []*pb.Device) {
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = proto.Equal(got[i], want[i])
	}
	if !ok {
		rt.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// A user's id may hold anything printable, braces among it, which Redis Cluster reads.
func TestOddNames(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		var devices []*pb.Device
		for i, name := range []string{"}", "{}", "a{b}c", "ünïcode ☃", "user:1", strings.Repeat("x", 128)} {
			d := device(name, schemas.Platforms[i%3])
			d.User = name
			devices = append(devices, d)
		}
		g := registrytest.Registry(t, r, devices...)
		for _, d := range devices {
			got, err := g.UserDevices(t.Context(), "shop", d.User)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, []*pb.Device{d})
		}
	})
}

func TestDecodeChangeRefuses(t *testing.T) {
	good := device("d", apns)
	key, value := registrytest.Record(t, good)
	noPlatform := device("d", pb.Platform_PLATFORM_UNSPECIFIED)
	_, noPlatformValue := registrytest.Record(t, noPlatform)
	for name, r := range map[string]record{
		"no key":                     {value: value},
		"a key without a device":     {key: []byte("shop"), value: value},
		"not protobuf":               {key: key, value: []byte("{\"id\":1}")},
		"an empty record":            {key: key, value: []byte{}},
		"another device's key":       {key: schemas.DeviceKey("shop", "e"), value: value},
		"another app's key":          {key: schemas.DeviceKey("news", "d"), value: value},
		"a device under a gone key":  {key: schemas.DeviceGoneKey("shop", "d"), value: value},
		"gone under a device's key":  {key: key, value: gone(t, "d", 1).value},
		"a device without platform":  {key: key, value: noPlatformValue},
		"a kind from a newer schema": {key: key, value: []byte{0x1a, 0x00}},
	} {
		if _, _, err := registry.DecodeChange(r.key, r.value); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, ok, err := registry.DecodeChange(schemas.DeviceGoneKey("shop", "d"), nil); ok || err != nil {
		t.Errorf("the tombstone of what a provider said: %v, %v", ok, err)
	}
}
