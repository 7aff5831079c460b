package config

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/belfry/belfry/registry"
)

// maxSkew is how far clocks may be apart before it shows: deliveries expire by them, and provider tokens carry them.
const maxSkew = 5 * time.Second

// checkRedis asks one node, of a cluster too, what it is.
func checkRedis(ctx context.Context, c *Config, r *report) {
	if len(c.Redis.Addresses) == 0 {
		r.ok("redis", "is embedded, and filled from Kafka at start")
		return
	}
	conf, err := c.Registry()
	if err != nil {
		r.fail("redis.tls", "correct the file", "%s", err)
		return
	}
	for _, address := range conf.Addresses {
		one := conf
		one.Addresses, one.Cluster = []string{address}, false
		checkRedisNode(ctx, r, address, one, c.Redis.Cluster)
	}
}

func checkRedisNode(ctx context.Context, r *report, address string, conf registry.RedisConfig, cluster bool) {
	client, err := registry.OpenRedis(conf)
	if err != nil {
		r.fail("redis", "correct it", "%s", err)
		return
	}
	defer client.Close()
	what := "redis " + address
	before := time.Now()
	there, err := client.Time(ctx).Result()
	took := time.Since(before)
	if err != nil {
		r.fail(what, "start Redis, or correct redis.addresses, redis.password and redis.tls", "cannot be used: %s", err)
		return
	}
	if skew := there.Sub(before.Add(took / 2)); skew.Abs() > maxSkew {
		r.warn(what, "run NTP on both machines", "its clock is %s from this machine's", skew.Abs().Round(time.Second))
	}
	checkRedisKind(r, what, info(ctx, client), cluster)
}

// info is INFO as a map; empty when the user may not ask.
func info(ctx context.Context, client redis.UniversalClient) map[string]string {
	out := make(map[string]string)
	for _, section := range []string{"server", "memory"} {
		for line := range strings.Lines(client.Info(ctx, section).Val()) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				out[key] = value
			}
		}
	}
	return out
}

func checkRedisKind(r *report, what string, info map[string]string, cluster bool) {
	version, mode := info["redis_version"], info["redis_mode"]
	var major int
	if _, err := fmt.Sscanf(version, "%d.", &major); err != nil {
		r.warn(what, "let its user call INFO to have version and mode checked", "answers, but does not say what it is")
		return
	}
	switch {
	case major < 6:
		r.fail(what, "upgrade to Redis 6.2 or later", "is Redis %s", version)
	case mode == "sentinel":
		r.fail(what, "give the address of a server, not of a sentinel", "is a sentinel")
	case cluster && mode != "cluster":
		r.fail(what, "set redis.cluster: false, or give the nodes of a cluster", "is a single server, and redis.cluster is true")
	case !cluster && mode == "cluster":
		r.fail(what, "set redis.cluster: true", "is a node of a cluster, and redis.cluster is false")
	default:
		r.ok(what, "is Redis %s, %s", version, mode)
	}
	if policy := info["maxmemory_policy"]; info["maxmemory"] != "0" && policy != "" && policy != "noeviction" {
		r.warn(what, "CONFIG SET maxmemory-policy noeviction", "drops keys when memory is short (%s), and devices with them", policy)
	}
}
