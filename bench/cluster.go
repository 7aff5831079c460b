package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
)

// Cluster is what "belfry bench cluster" prints: the addresses of the Kafka and the Redis that it runs.
type Cluster struct {
	Kafka []string `json:"kafka"`
	Redis []string `json:"redis"`
}

// cluster is a Kafka and a Redis, neither in this process, with everything under names of this run.
type cluster struct {
	*stream.Kafka
	redis       []string
	redisPrefix string
	// embedded runs both, unless both are real.
	embedded *process
	client   *kgo.Client
	adm      *kadm.Client
}

// cluster opens what the environment names, with all topics.
func (e *Env) cluster(ctx context.Context) (_ *cluster, err error) {
	name := fmt.Sprintf("belfry-bench-%08x", rand.Uint32())
	c := &cluster{redis: e.Redis, redisPrefix: name + ":"}
	c.Kafka = &stream.Kafka{Brokers: e.Kafka, Prefix: name + ".", Instance: "bench", Log: slog.New(slog.DiscardHandler)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if len(e.Kafka) == 0 || len(e.Redis) == 0 {
		if err := c.embed(ctx, e); err != nil {
			return nil, err
		}
	}
	if _, err := stream.ApplyTopics(ctx, c.Kafka); err != nil {
		return nil, err
	}
	if err := errors.Join(stream.WaitForTopics(ctx, c.Kafka), stream.MarkCluster(ctx, c.Kafka)); err != nil {
		return nil, err
	}
	if c.client, err = c.Client(kgo.MaxBufferedRecords(100_000)); err != nil {
		return nil, err
	}
	c.adm = kadm.NewClient(c.client)
	return c, nil
}

// embed starts what is not given.
func (c *cluster) embed(ctx context.Context, e *Env) (err error) {
	if c.embedded, err = start(e.Dir, "cluster", nil, e.Belfry, "bench", "cluster"); err != nil {
		return err
	}
	var at Cluster
	err = c.embedded.await(ctx, func() bool {
		line, _, whole := bytes.Cut(c.embedded.logged(), []byte("\n"))
		return whole && json.Unmarshal(line, &at) == nil
	})
	if len(c.Brokers) == 0 {
		c.Brokers = at.Kafka
	}
	if len(c.redis) == 0 {
		c.redis = at.Redis
	}
	return err
}

// registry opens the view of the devices.
func (c *cluster) registry() (*registry.Redis, error) {
	return registry.OpenRedis(registry.RedisConfig{Addresses: c.redis, Cluster: len(c.redis) > 1, Prefix: c.redisPrefix})
}

// close removes what a real Kafka and Redis were given, and ends an embedded one.
func (c *cluster) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.client != nil {
		var names []string
		for _, t := range schemas.Plan() {
			names = append(names, c.Topic(t.Name))
		}
		_, err = c.adm.DeleteTopics(ctx, names...)
		c.client.Close()
		redis, open := c.registry()
		if err = errors.Join(err, open); open == nil {
			err = errors.Join(err, redis.RemoveAll(ctx), redis.Close())
		}
	}
	if c.embedded != nil {
		err = errors.Join(err, c.embedded.stop())
	}
	return err
}

// ends are where a topic's partitions end for readers of what is committed.
func (c *cluster) ends(ctx context.Context, topics ...string) (at map[string]map[int32]int64, sum int64, err error) {
	full := make([]string, len(topics))
	for i, t := range topics {
		full[i] = c.Topic(t)
	}
	listed, err := c.adm.ListCommittedOffsets(ctx, full...)
	if err = errors.Join(err, listed.Error()); err != nil {
		return nil, 0, fmt.Errorf("list offsets: %w", err)
	}
	at = map[string]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if at[o.Topic] == nil {
			at[o.Topic] = map[int32]int64{}
		}
		at[o.Topic][o.Partition] = o.Offset
		sum += o.Offset
	})
	return at, sum, nil
}

// backlog is how many records a consumer has not done (stream.Backlog). A new cluster makes its first group's topic first.
func (c *cluster) backlog(ctx context.Context, consumer, topic string) (int, error) {
	for began := time.Now(); ; {
		n, err := stream.Backlog(ctx, c.Kafka, c.adm, consumer, topic)
		if err == nil || !kerr.IsRetriable(err) || time.Since(began) > lostAfter {
			return int(n), err
		}
		if !pause(ctx, 20*lookEvery) {
			return 0, ctx.Err()
		}
	}
}

// read calls fn with each committed record of some topics, up to where they end now.
func (c *cluster) read(ctx context.Context, fn func(*kgo.Record), topics ...string) error {
	left, sum, err := c.ends(ctx, topics...)
	if err != nil || sum == 0 {
		return err
	}
	from := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range left {
		from[topic] = map[int32]kgo.Offset{}
		for p, end := range partitions {
			if end > 0 {
				from[topic][p] = kgo.NewOffset().AtStart()
			} else {
				delete(partitions, p)
			}
		}
	}
	client, err := c.Client(
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a partition may end with markers
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for open := count(left); open > 0; open = count(left) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %v: %w", topics, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, wanted := left[r.Topic][r.Partition]
			if !wanted || r.Offset >= end {
				return
			}
			if !r.Attrs.IsControl() {
				fn(r)
			}
			if r.Offset == end-1 {
				delete(left[r.Topic], r.Partition)
			}
		})
	}
	return nil
}

func count(m map[string]map[int32]int64) (n int) {
	for _, partitions := range m {
		n += len(partitions)
	}
	return n
}
