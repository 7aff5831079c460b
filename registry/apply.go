package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Change is what one record on belfry.devices says of one device.
type Change struct {
	app, id string
	// One of the two, or neither: the app removed the device.
	device *pb.Device
	gone   *pb.DeviceGone
}

// DecodeChange reads a record of belfry.devices. ok is false where the record changes nothing: a tombstone of what a
// provider had said.
func DecodeChange(key, value []byte) (c Change, ok bool, err error) {
	parts := schemas.SplitKey(key, 2)
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return Change{}, false, errors.New("the key is not app/device")
	}
	c = Change{app: parts[0], id: parts[1]}
	if value == nil {
		// A device's id holds no "#": this is a DeviceGoneKey.
		return c, !strings.Contains(c.id, "#"), nil
	}
	var r pb.DeviceRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return Change{}, false, fmt.Errorf("the value is not a DeviceRecord: %w", err)
	}
	var app, id string
	var want []byte
	switch kind := r.Kind.(type) {
	case *pb.DeviceRecord_Device:
		c.device = kind.Device
		app, id = c.device.GetApp(), c.device.GetId()
		want = schemas.DeviceKey(app, id)
		if p := c.device.GetPlatform(); schemas.PlatformName(p) == "" {
			return Change{}, false, fmt.Errorf("platform %d is unknown", p)
		}
	case *pb.DeviceRecord_Gone:
		c.gone = kind.Gone
		app, id = c.gone.GetApp(), c.gone.GetId()
		want = schemas.DeviceGoneKey(app, id)
	default:
		return Change{}, false, errors.New("the DeviceRecord holds neither a device nor that it is gone; it may be of a newer version")
	}
	if string(want) != string(key) {
		return Change{}, false, errors.New("the key and the value name different devices")
	}
	c.app, c.id = app, id
	return c, true, nil
}

// Apply makes the changes, in their order, in three round trips, and a fourth where targets move. Doing it again, or doing
// it again from an earlier change on, ends in the same state. One device's changes must come from one caller at a time: they
// do, for they lie on one partition. It returns the devices that have lost their target to another: they may lie on any
// partition, so it is the caller who makes them known (moves.go).
func (g *Registry) Apply(ctx context.Context, changes []Change) ([]*pb.DeviceGone, error) {
	return g.apply(ctx, changes, false)
}

// apply is Apply; building tells that the view is not complete yet and that it is the caller who completes it.
func (g *Registry) apply(ctx context.Context, changes []Change, building bool) ([]*pb.DeviceGone, error) {
	type name struct{ app, id string }
	states := make([]state, 0, len(changes))
	index := make(map[name]int, len(changes))
	load := func(p redis.Pipeliner) {
		for _, c := range changes {
			n := name{c.app, c.id}
			if _, ok := index[n]; !ok {
				index[n] = len(states)
				states = append(states, state{app: c.app, id: c.id, was: g.load(ctx, p, c.app, c.id)})
			}
		}
	}
	if _, err := g.read(ctx, load); err != nil && !(building && errors.Is(err, ErrNotBuilt)) {
		return nil, fmt.Errorf("load devices: %w", err)
	}
	for i := range states {
		s := &states[i]
		// One that cannot be read is replaced or removed like any other; only its user is not known.
		s.before, _ = s.was.device()
		s.now = s.before
	}
	for _, c := range changes {
		states[index[name{c.app, c.id}]].change(c)
	}
	pipe := g.redis.Pipeline()
	for i := range states {
		if err := g.store(ctx, pipe, &states[i]); err != nil {
			return nil, err
		}
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("store devices: %w", err)
	}
	return g.move(ctx, states)
}

// state is one device while changes are folded into it.
type state struct {
	app, id string
	was     stored
	before  *pb.Device
	now     *pb.Device
}

func (s *state) change(c Change) {
	switch {
	case c.device != nil:
		s.now = c.device
	case c.gone == nil:
		s.now = nil
	case s.now == nil || s.now.RegisteredAt >= c.gone.At:
	case len(c.gone.Target) == 0 || bytes.Equal(c.gone.Target, schemas.TargetHash(s.now.Target)):
		s.now = nil
	}
}

// store queues what turns the stored device into s.now. The user's index is written whether it changed or not: when a
// pipeline failed half-way, the next attempt finds the device changed already, and the index perhaps not.
func (g *Registry) store(ctx context.Context, pipe redis.Pipeliner, s *state) error {
	if s.before != nil && s.before.User != "" && s.before.User != s.now.GetUser() {
		pipe.HDel(ctx, g.userKey(s.app, s.before.User), s.id)
	}
	if s.now.GetUser() != "" {
		pipe.HSet(ctx, g.userKey(s.app, s.now.User), s.id, "")
	}
	shard := schemas.Shard(s.id)
	for i, p := range schemas.Platforms {
		if s.now.GetPlatform() != p && s.was[i].Err() == nil {
			pipe.HDel(ctx, g.shardKey(s.app, shard, p), s.id)
		}
	}
	if s.now == nil {
		return nil
	}
	value, err := proto.Marshal(s.now)
	if err != nil {
		return fmt.Errorf("encode device %s/%s: %w", s.app, s.id, err)
	}
	pipe.HSet(ctx, g.shardKey(s.app, shard, s.now.Platform), s.id, value)
	return nil
}

// stored is what lies under a device's id in each of schemas.Platforms. More than one does only after a write that
// failed half-way.
type stored [3]*redis.StringCmd

func (g *Registry) load(ctx context.Context, pipe redis.Pipeliner, app, id string) (s stored) {
	shard := schemas.Shard(id)
	for i, p := range schemas.Platforms {
		s[i] = pipe.HGet(ctx, g.shardKey(app, shard, p), id)
	}
	return s
}

// device is the newest of them, or nil when there is none.
func (s stored) device() (*pb.Device, error) {
	var newest *pb.Device
	for _, c := range s {
		if c.Err() != nil {
			continue
		}
		d := new(pb.Device)
		if err := decodeDevice(c.Val(), d); err != nil {
			return nil, err
		}
		if newest == nil || d.RegisteredAt > newest.RegisteredAt {
			newest = d
		}
	}
	return newest, nil
}

func decodeDevice(value string, d *pb.Device) error {
	// Unmarshal copies whatever it keeps, so the string's own bytes may be lent to it.
	b := unsafe.Slice(unsafe.StringData(value), len(value))
	if err := proto.Unmarshal(b, d); err != nil {
		return fmt.Errorf("decode a device out of Redis: %w", err)
	}
	return nil
}
