package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// ClusterSchema grows when a release changes records or topics in a way that older ones cannot follow.
const ClusterSchema = 1

const clusterKey = "cluster"

// ErrNoCluster says that nobody has prepared this Kafka for Belfry yet.
var ErrNoCluster = errors.New("this Kafka has no Belfry cluster yet: run belfry topics apply")

// CheckCluster refuses a cluster that this binary does not fit: prepared by a newer release, or with another number of
// shards. Starting all the same is how a restart turns a slow morning into a silent one. It waits for a Kafka that is away.
func CheckCluster(ctx context.Context, k *Kafka) error {
	c, err := readCluster(ctx, k)
	if err != nil {
		return err
	}
	if c == nil {
		return ErrNoCluster
	}
	return fits(c)
}

func fits(c *pb.ClusterConfig) error {
	switch {
	case c.Schema > ClusterSchema:
		return fmt.Errorf("the cluster has records of schema %d, and this belfry knows up to %d: run a newer release", c.Schema, ClusterSchema)
	case c.Shards != schemas.Shards:
		return fmt.Errorf("the cluster's registry has %d shards, and this belfry has %d: it belongs to another cluster", c.Shards, schemas.Shards)
	}
	return nil
}

// MarkCluster notes what this binary is on a cluster that it may serve, so that older ones are kept out from now on.
// belfry topics apply calls it.
func MarkCluster(ctx context.Context, k *Kafka) error {
	c, err := readCluster(ctx, k)
	if err != nil {
		return err
	}
	if c != nil {
		if err := fits(c); err != nil || c.Schema == ClusterSchema {
			return err
		}
	}
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: &pb.ClusterConfig{
		Schema: ClusterSchema, Shards: schemas.Shards, At: time.Now().UnixMilli(),
	}}})
	if err != nil {
		return fmt.Errorf("encode cluster configuration: %w", err)
	}
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	record := &kgo.Record{Topic: k.Topic(schemas.TopicControl), Key: []byte(clusterKey), Value: value}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("mark cluster: %w", err)
	}
	return nil
}

func readCluster(ctx context.Context, k *Kafka) (*pb.ClusterConfig, error) {
	ctx, stop := context.WithCancel(ctx)
	var found *pb.ClusterConfig
	var bad error
	v := NewView(k, schemas.TopicControl, func(r ViewRecord) {
		if string(r.Key) != clusterKey {
			return
		}
		var c pb.Control
		if bad = proto.Unmarshal(r.Value, &c); bad == nil {
			found = c.GetCluster()
		}
	})
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	caughtUp := v.CatchUp(ctx)
	stop()
	if err := errors.Join(<-done, caughtUp, bad); err != nil {
		return nil, fmt.Errorf("read the cluster's configuration from %s: %w", k.Topic(schemas.TopicControl), err)
	}
	return found, nil
}
