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

// ClusterSchema grows when a release changes records or topics in a way that older ones cannot follow. Since 2 keys lie as
// the cluster's record says, which releases before do not read.
const ClusterSchema = 2

const clusterKey = "cluster"

// ErrNoCluster says that nobody has prepared this Kafka for Belfry yet.
var ErrNoCluster = errors.New("this Kafka has no Belfry cluster yet: run belfry topics apply")

// CheckCluster refuses a cluster that this binary does not fit: prepared by a newer release, with another number of shards,
// or with keys that do not lie where they should. Starting all the same is how a restart turns a slow morning into a silent
// one. From here on k places keys as the cluster does: nothing else may use k before. It waits for a Kafka that is away, and for
// belfry topics apply where nobody has run that yet or it is at work; k.Health says which.
func CheckCluster(ctx context.Context, k *Kafka) error {
	if err := k.await(ctx); err != nil {
		return err
	}
	var none unprepared
	none.fails, none.works = "this process waits for a cluster", "there is a cluster"
	defer k.running(&none)()
	for {
		c, err := readCluster(ctx, k)
		if err != nil {
			return err
		}
		if c != nil {
			none.over(k.Log)
			return adopt(ctx, k, c)
		}
		none.note(k, k.Log, ErrNoCluster)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), ErrNoCluster)
		case <-time.After(time.Second):
		}
	}
}

// unprepared is that a process waits for the record of its cluster.
type unprepared struct{ trouble }

// Health is what it waits for, or nil.
func (u *unprepared) Health() error {
	_, err := u.lasts()
	return err
}

// MarkCluster is CheckCluster for whoever prepares a cluster, with belfry topics apply: it may be a new one.
func MarkCluster(ctx context.Context, k *Kafka) error {
	c, err := readCluster(ctx, k)
	if err != nil {
		return err
	}
	if c == nil {
		c = newCluster()
	}
	return adopt(ctx, k, c)
}

func newCluster() *pb.ClusterConfig { return &pb.ClusterConfig{Shards: schemas.Shards} }

// adopt checks a cluster, notes on it what an earlier release did not, and has k place keys so.
func adopt(ctx context.Context, k *Kafka, c *pb.ClusterConfig) error {
	if err := fits(c); err != nil {
		return err
	}
	client, err := k.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	there, hidden, err := listVisible(ctx, k, client)
	if err != nil {
		return err
	}
	changed := c.Schema != ClusterSchema
	var conflicts error
	for _, plan := range schemas.Plan() {
		if breaks[plan.Name] == "" {
			continue
		}
		topic, noted := plannedTopic{plan, k.Topic(plan.Name), plan.Partitions}, c.Keyed[plan.Name]
		if is, ok := there[plan.Name]; ok { // else belfry topics apply will make it so
			topic = is
			problem, err := conflict(ctx, k, topic, noted)
			if err != nil {
				return err
			}
			if problem != "" {
				conflicts = errors.Join(conflicts, conflictError(topic.name, problem))
			}
		}
		if noted == nil {
			note(c, topic)
			changed = true
		}
	}
	switch {
	case conflicts != nil:
		return conflicts
	case changed && hidden != nil: // else this process does not place its keys
		return fmt.Errorf("run belfry topics apply as a user who may see every topic: %w", hidden)
	}
	k.follow(c)
	if !changed {
		return nil
	}
	return writeCluster(ctx, k, c)
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

// note takes down how many partitions a keyed topic has, and how its keys are spread over them if that is not known.
func note(c *pb.ClusterConfig, topic plannedTopic) {
	noted := &pb.KeyedTopic{Spread: spreadFor(topic.plan, topic.partitions), Partitions: topic.partitions}
	if before := c.Keyed[topic.plan.Name]; before != nil {
		noted.Spread = before.Spread
	}
	if c.Keyed == nil {
		c.Keyed = map[string]*pb.KeyedTopic{}
	}
	c.Keyed[topic.plan.Name] = noted
}

// follow places keys as a cluster does.
func (k *Kafka) follow(c *pb.ClusterConfig) {
	k.spreads = make(map[string]spread, len(c.Keyed))
	for topic, noted := range c.Keyed {
		k.spreads[topic] = spread{topic, noted.Spread, noted.Partitions}
	}
}

// writeCluster says what this binary is, so that older ones are kept out from now on. k must follow c already.
func writeCluster(ctx context.Context, k *Kafka, c *pb.ClusterConfig) error {
	c.Schema, c.At = ClusterSchema, time.Now().UnixMilli()
	value, err := proto.Marshal(&pb.Control{Kind: &pb.Control_Cluster{Cluster: c}})
	if err != nil {
		return fmt.Errorf("encode cluster configuration: %w", err)
	}
	record := &kgo.Record{Topic: k.Topic(schemas.TopicControl), Key: []byte(clusterKey), Value: value}
	if err := k.Write(ctx, record); err != nil {
		return fmt.Errorf("note the cluster's configuration, as belfry topics apply does: %w", err)
	}
	return nil
}

// readCluster is nil where nobody has prepared one. It is read wherever it lies, for only it says where; and without waiting for
// transactions, for it is written in none, and a process that was killed in one ends that only when it has started again.
func readCluster(ctx context.Context, k *Kafka) (*pb.ClusterConfig, error) {
	var newest *pb.ClusterConfig
	var written time.Time
	var bad error
	v := newRawView(k, schemas.TopicControl, func(r ViewRecord) {
		if string(r.Key) != clusterKey || r.Timestamp.Before(written) {
			return
		}
		var c pb.Control
		if bad = proto.Unmarshal(r.Value, &c); bad == nil {
			newest, written = c.GetCluster(), r.Timestamp
		}
	})
	v.undecided = true
	if err := errors.Join(v.during(ctx, v.CatchUp), bad); err != nil {
		return nil, fmt.Errorf("the cluster's configuration: %w", err)
	}
	return newest, nil
}

// recountEvery is how often a process asks whether keyed topics still have the partitions that they had when it started.
const recountEvery = 10 * time.Second

// recount says where they have not. The process goes on, for its keys stay where they are; but none starts.
type recount struct {
	k    *Kafka
	next time.Time
	said map[string]int32 // partitions, by topic
}

func (r *recount) look(ctx context.Context, client *kgo.Client) {
	if time.Now().Before(r.next) {
		return
	}
	r.next = time.Now().Add(recountEvery)
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	there, _, err := listVisible(ctx, r.k, client)
	if err != nil {
		return // who watches says when Kafka is away
	}
	for name, s := range r.k.spreads {
		topic, ok := there[name]
		if !ok || topic.partitions == s.partitions || topic.partitions == r.said[name] {
			continue
		}
		r.said[name] = topic.partitions
		r.k.Log.Error("the partitions of a topic were changed whose keys must keep theirs. This process goes on with the ones before; "+
			"none starts until belfry topics repair", "topic", topic.name, "partitions", topic.partitions, "before", s.partitions)
	}
}
