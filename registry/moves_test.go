package registry_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// phoneOf is a device that has a target since a moment.
func phoneOf(id, token string, at int64) *pb.Device {
	return &pb.Device{
		App: "shop", Id: id, User: "u-" + id, Platform: fcm, RegisteredAt: at,
		Target: &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: token}}},
	}
}

func change(t testing.TB, key, value []byte) registry.Change {
	t.Helper()
	c, ok, err := registry.DecodeChange(key, value)
	if err != nil || !ok {
		t.Fatalf("decode: %v, %v", ok, err)
	}
	return c
}

// Whoever registers a target last has it alone, in whatever order the partitions are applied, and when batches are applied
// again whose answer was lost.
func TestTargetBelongsToWhoRegisteredItLast(t *testing.T) {
	registrytest.Each(t, func(t *testing.T, r *registry.Redis) {
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			g := registrytest.Registry(t, &registry.Redis{UniversalClient: r.UniversalClient, Prefix: fmt.Sprintf("%sm%d:", r.Prefix, runs)})
			ids := []string{"a", "b", "c"}
			// The last to register a target: of those in one millisecond, the one whose id is the greatest.
			histories, last := map[string][]*pb.Device{}, map[string]*pb.Device{}
			for _, id := range ids {
				at := int64(0)
				for range rapid.IntRange(0, 4).Draw(rt, "registrations of "+id) {
					at += rapid.Int64Range(0, 3).Draw(rt, "later")
					d := phoneOf(id, rapid.SampledFrom([]string{"S", "T"}).Draw(rt, "target"), at)
					histories[id] = append(histories[id], d)
					if l := last[d.Target.GetFcm().Token]; l == nil || at > l.RegisteredAt || at == l.RegisteredAt && id >= l.Id {
						last[d.Target.GetFcm().Token] = d
					}
				}
			}
			final := map[string]*pb.Device{}
			var moved []registry.Change
			apply := func(changes []registry.Change, answered bool) {
				lost, err := g.Apply(t.Context(), changes)
				if err != nil {
					rt.Fatal(err)
				}
				for _, gone := range lost {
					if answered {
						moved = append(moved, change(t, schemas.DeviceGoneKey("shop", gone.Id), encode(t, &pb.DeviceRecord{Kind: &pb.DeviceRecord_Gone{Gone: gone}})))
					}
				}
			}
			for {
				var left []string
				for _, id := range ids {
					if len(histories[id]) > 0 {
						left = append(left, id)
					}
				}
				if len(left) == 0 {
					break
				}
				id := rapid.SampledFrom(left).Draw(rt, "partition")
				n := rapid.IntRange(1, len(histories[id])).Draw(rt, "batch")
				var changes []registry.Change
				for _, d := range histories[id][:n] {
					key, value := registrytest.Record(t, d)
					changes = append(changes, change(t, key, value))
					final[id] = d
				}
				histories[id] = histories[id][n:]
				if rapid.Bool().Draw(rt, "answer lost") {
					apply(changes, false)
				}
				apply(changes, true)
				if rapid.Bool().Draw(rt, "moves come back") {
					apply(moved, true)
				}
			}
			apply(moved, true)
			got, err := g.Devices(t.Context(), "shop", ids)
			if err != nil {
				rt.Fatal(err)
			}
			holder := map[string]string{}
			for _, d := range got {
				token := d.Target.GetFcm().Token
				if before := holder[token]; before != "" {
					rt.Fatalf("%s and %s both have %s", before, d.Id, token)
				}
				holder[token] = d.Id
			}
			for id, d := range final {
				token := d.Target.GetFcm().Token
				// Where the last to register it has left it since, an older registration that comes late may have it.
				if last[token].Id == id && holder[token] != id {
					rt.Fatalf("%s registered %s last, and %q has it", id, token, holder[token])
				}
			}
		})
	})
}

// The way through Kafka: the old device is gone, its user has it no more, and a Redis that is filled anew ends the same.
func TestMovedDeviceIsGoneForGood(t *testing.T) {
	k := streamtest.Kafka(t)
	r := registrytest.Redis(t)
	g := registrytest.Registry(t, r)
	run(t, k, g)
	produce(t, k, registered(t, phoneOf("old", "T", 10)), registered(t, phoneOf("other", "S", 10)))
	eventually(t, "both are there", func() bool { return has(t, g, "old")() && has(t, g, "other")() })
	produce(t, k, registered(t, phoneOf("new", "T", 20)))
	eventually(t, "the old device is gone", func() bool { return !has(t, g, "old")() && has(t, g, "new")() })
	if found, err := g.UserDevices(t.Context(), "shop", "u-old"); err != nil || len(found) > 0 {
		t.Errorf("its user has %v, %v", found, err)
	}
	// The phone is the old one's again, which frees no other.
	produce(t, k, registered(t, phoneOf("old", "T", 30)))
	eventually(t, "the new device is gone", func() bool { return has(t, g, "old")() && !has(t, g, "new")() })
	if !has(t, g, "other")() {
		t.Error("a device that shares no target is gone")
	}
	if err := registry.Rebuild(t.Context(), k, g, nil); err != nil {
		t.Fatal(err)
	}
	if !has(t, g, "old")() || has(t, g, "new")() || !has(t, g, "other")() {
		t.Error("a rebuild ends differently")
	}
}

// Devices that shared a target before anybody noticed such things are told apart by a rebuild.
func TestRebuildMovesTargets(t *testing.T) {
	k := streamtest.Kafka(t)
	g := registrytest.Registry(t, registrytest.Redis(t))
	var records []record
	for i := range 10 {
		records = append(records, registered(t, phoneOf(fmt.Sprint("d", i), "T", int64(i))))
	}
	produce(t, k, records...)
	if err := registry.Rebuild(t.Context(), k, g, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if id := fmt.Sprint("d", i); has(t, g, id)() != (i == 9) {
			t.Errorf("%s: %v", id, has(t, g, id)())
		}
	}
}

// Removing a target's device frees the target, and what is gone of one target leaves a device with another.
func TestGivenUpTargets(t *testing.T) {
	g := registrytest.Registry(t, registrytest.Redis(t), phoneOf("a", "T", 10))
	lost, err := g.Apply(t.Context(), []registry.Change{change(t, schemas.DeviceKey("shop", "a"), nil)})
	if err != nil || len(lost) > 0 {
		t.Fatalf("removed: %v, %v", lost, err)
	}
	key, value := registrytest.Record(t, phoneOf("b", "T", 5))
	if lost, err = g.Apply(t.Context(), []registry.Change{change(t, key, value)}); err != nil || len(lost) > 0 {
		t.Errorf("a target that nobody has was taken from %v, %v", lost, err)
	}
	gone := &pb.DeviceGone{App: "shop", Id: "b", At: 99, Target: schemas.TargetHash(phoneOf("b", "S", 0).Target)}
	c := change(t, schemas.DeviceGoneKey("shop", "b"), encode(t, &pb.DeviceRecord{Kind: &pb.DeviceRecord_Gone{Gone: gone}}))
	if _, err := g.Apply(t.Context(), []registry.Change{c}); err != nil || !has(t, g, "b")() {
		t.Errorf("the loss of another target removed the device (%v)", err)
	}
	if proto.Equal(phoneOf("b", "S", 0).Target, phoneOf("b", "T", 0).Target) {
		t.Fatal("the targets are the same: the test proves nothing")
	}
}
