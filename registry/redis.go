package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// RedisConfig says how to reach Redis. The zero value means one in this process.
type RedisConfig struct {
	// Addresses are host:port: one server, or any nodes of a cluster.
	Addresses []string
	Cluster   bool
	Username  string
	Password  string
	// TLS is nil for plain connections.
	TLS *tls.Config
	// Prefix is before every key: "belfry:" when empty.
	Prefix string

	// dial is nil for the network.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Redis is a client and, in the embedded default, the server behind it. Safe for concurrent use.
type Redis struct {
	redis.UniversalClient
	// Prefix is before every key of this installation.
	Prefix string
	// Embedded tells that it lives in this process and starts empty: see Rebuild.
	Embedded bool

	server *miniredis.Miniredis
}

// The library writes each dial that failed to standard error, beside returning it.
func init() { logging.Disable() }

// OpenRedis makes the client. It does not connect: whoever uses it first does, and retries as it sees fit.
func OpenRedis(c RedisConfig) (*Redis, error) {
	r := &Redis{Prefix: c.Prefix}
	if r.Prefix == "" {
		r.Prefix = "belfry:"
	}
	if strings.ContainsAny(r.Prefix, "{}*?[]\\") {
		// Braces would decide the cluster slot of every key, the others are SCAN's patterns.
		return nil, fmt.Errorf("redis.prefix %q: must not contain any of {}*?[]\\", r.Prefix)
	}
	if len(c.Addresses) > 1 && !c.Cluster {
		return nil, fmt.Errorf("redis.addresses: %d addresses are given for a single server; give one, or set redis.cluster: true", len(c.Addresses))
	}
	if len(c.Addresses) == 0 {
		if c.Cluster {
			return nil, errors.New("redis.cluster is set, but redis.addresses is empty; give the address of at least one node")
		}
		if err := r.embed(&c); err != nil {
			return nil, err
		}
	}
	r.UniversalClient = redis.NewUniversalClient(options(c))
	return r, nil
}

// embed starts a server in this process and points c to it.
func (r *Redis) embed(c *RedisConfig) error {
	server := miniredis.NewMiniRedis()
	first, err := server.Dial() // which starts it
	if err != nil {
		return fmt.Errorf("start the embedded Redis: %w", err)
	}
	if err := first.Close(); err != nil {
		return fmt.Errorf("start the embedded Redis: %w", err)
	}
	r.server, r.Embedded = server, true
	*c = RedisConfig{Addresses: []string{"embedded"}, dial: func(context.Context, string, string) (net.Conn, error) {
		conn, err := server.Dial()
		if err != nil {
			return nil, err
		}
		return dialledOn(conn), nil
	}}
	return nil
}

func options(c RedisConfig) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:         c.Addresses,
		IsClusterMode: c.Cluster,
		Username:      c.Username,
		Password:      c.Password,
		TLSConfig:     c.TLS,
		Dialer:        c.dial,
		// The library's own retries are few and short, so that a caller whose context is over is back within the 5 s
		// that a revoked partition may take.
		MaxRetries:               1,
		DialTimeout:              time.Second,
		DialerRetries:            1,
		ReadTimeout:              2 * time.Second,
		WriteTimeout:             2 * time.Second,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// Close ends the client, and the embedded server with all that it holds.
func (r *Redis) Close() error {
	err := r.UniversalClient.Close()
	if r.server != nil {
		r.server.Close()
	}
	return err
}

// RemoveAll removes every key of this installation.
func (r *Redis) RemoveAll(ctx context.Context) error { return r.remove(ctx, r.Prefix) }

// remove removes the keys that begin so, from every master.
func (r *Redis) remove(ctx context.Context, prefix string) error {
	if cluster, ok := r.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return removeFrom(ctx, node, prefix) })
	}
	return removeFrom(ctx, r.UniversalClient, prefix)
}

func removeFrom(ctx context.Context, node redis.Cmdable, prefix string) error {
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, prefix+"*", readBatch).Result()
		if err != nil {
			return err
		}
		pipe := node.Pipeline()
		for _, k := range keys {
			pipe.Unlink(ctx, k) // one each: keys of several slots cannot share a command
		}
		if err := exec(ctx, pipe); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
