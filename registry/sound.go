package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
)

// Sound tells why this Redis cannot hold what it should, or nil: it does not answer, takes no writes, or drops keys when its memory is
// full. Its error names the mend.
func (r *Redis) Sound(ctx context.Context) error {
	if err := r.Set(ctx, r.Prefix+"{registry}:probe", "", 10*time.Second).Err(); err != nil {
		return fmt.Errorf("Redis takes no writes: %w%s", err, redisMend(err))
	}
	if cluster, ok := r.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return keepsAll(ctx, node) })
	}
	return keepsAll(ctx, r.UniversalClient)
}

// redisMend is what an operator can do about a write that was refused, where that is known.
func redisMend(err error) string {
	for prefix, mend := range map[string]string{
		"READONLY": "; it is a replica: give the address of the server that it copies in redis.addresses",
		"MISCONF":  "; it cannot save to its disk: look at its log, and make room",
		"OOM":      "; its memory is full: raise maxmemory",
		"NOPERM":   "; allow its user all commands on the keys of redis.prefix",
	} {
		if strings.HasPrefix(err.Error(), prefix) {
			return mend
		}
	}
	return ""
}

// keepsAll tells of a server that drops keys of any kind when memory is short. Policies that drop only keys with an expiry take
// idempotency keys, which Belfry does without; belfry check warns of those. A server that does not say is taken at its best.
func keepsAll(ctx context.Context, node redis.Cmdable) error {
	info := map[string]string{}
	for line := range strings.Lines(node.Info(ctx, "memory").Val()) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[key] = value
		}
	}
	if policy := info["maxmemory_policy"]; info["maxmemory"] != "0" && strings.HasPrefix(policy, "allkeys") {
		return fmt.Errorf("Redis drops keys when its memory is full (maxmemory-policy %s), and devices with them: CONFIG SET maxmemory-policy noeviction", policy)
	}
	return nil
}

// Lag measures how far the registry is behind belfry.devices, whoever keeps it. It is for one goroutine.
type Lag struct {
	k      *stream.Kafka
	client *kgo.Client
	meter  *stream.Meter
	done   int64
}

// NewLag makes one.
func NewLag(k *stream.Kafka, client *kgo.Client) *Lag {
	return &Lag{k: k, client: client, meter: stream.NewMeter(k, client, consumerName, schemas.TopicDevices)}
}

// Read tells how many changes the registry has not applied, and whether it has applied any since the last Read. It fails when Kafka
// does not tell.
func (l *Lag) Read(ctx context.Context) (waiting int64, moved bool, err error) {
	r, err := l.meter.Read(ctx)
	if err != nil {
		return 0, false, err
	}
	group := l.k.Prefix + consumerName
	committed, err := kadm.NewClient(l.client).FetchOffsetsForTopics(ctx, group, l.k.Topic(schemas.TopicDevices))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // it has never run
		return 0, false, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	done := int64(0)
	committed.Each(func(o kadm.OffsetResponse) { done += max(0, o.At) })
	moved, l.done = done != l.done, done
	return r.Backlog, moved, nil
}
