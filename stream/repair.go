package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// TopicRepair is what RepairTopics does to one topic.
type TopicRepair struct {
	// Topic is the full name.
	Topic string `json:"topic"`
	// Noted is how many partitions it had by the cluster's record, 0 where that knew nothing of it; Partitions is how many it
	// has; Spread is how many of these its keys lie on, the first ones. Where there are fewer they are added.
	Noted      int32 `json:"noted"`
	Partitions int32 `json:"partitions"`
	Spread     int32 `json:"spread"`
	// Moves are the keys whose newest record lies on a partition that is not theirs.
	Moves []KeyMove `json:"moves"`
	// Stale is of how many keys only older records lie elsewhere: those are removed.
	Stale int `json:"stale"`
}

// KeyMove is how many keys go from one partition to another.
type KeyMove struct {
	From int32 `json:"from"`
	To   int32 `json:"to"`
	Keys int   `json:"keys"`
}

// Nothing says that the topic is as it should be.
func (r TopicRepair) Nothing() bool {
	return r.Noted == r.Partitions && len(r.Moves) == 0 && r.Stale == 0
}

// ErrEarlierRelease says that processes run which place keys by the number of partitions, against which nothing helps.
var ErrEarlierRelease = errors.New("processes of an earlier release run: stop them first")

// RepairTopics brings every key of the compacted keyed topics to the partition that is its own, and notes the partitions that
// the keyed topics have, so that processes start again. Keys keep their spread where the cluster's record knows it: then only
// what others wrote elsewhere moves. Else they are spread over all partitions that there are. Of two records of a key on two
// partitions the one with the later timestamp is the newer; of two with the same, the one on the key's own partition. Without
// write it changes nothing and tells what it would do. It may be stopped at any moment and run again, and beside processes of
// this release: they pass over what lies elsewhere. Topics that are not compacted need nothing: whoever consumes them brings
// strays home.
func RepairTopics(ctx context.Context, k *Kafka, write bool) ([]TopicRepair, error) {
	client, err := k.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	there, err := listPlanned(ctx, k, client)
	if err != nil {
		return nil, err
	}
	if _, ok := there[schemas.TopicControl]; !ok {
		return nil, ErrNoCluster
	}
	c, err := readCluster(ctx, k)
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = newCluster()
	}
	if err := fits(c); err != nil {
		return nil, err
	}
	maps.DeleteFunc(there, func(name string, _ plannedTopic) bool { return breaks[name] == "" })
	if write {
		if err := nobodyPlaces(ctx, kadm.NewClient(client), there, c); err != nil {
			return nil, err
		}
	}
	var repairs []TopicRepair
	for _, name := range slices.Sorted(maps.Keys(there)) {
		topic := there[name]
		one, err := repairTopic(ctx, k, client, topic, c.Keyed[name], write)
		if err != nil {
			return repairs, fmt.Errorf("repair %s: %w", topic.name, err)
		}
		if write {
			topic.partitions = max(topic.partitions, one.Spread) // some were added
			note(c, topic)
		}
		repairs = append(repairs, one)
	}
	if !write {
		return repairs, nil
	}
	k.follow(c)
	return repairs, writeCluster(ctx, k, c)
}

// nobodyPlaces is ErrEarlierRelease where a consumer has a topic of which the cluster's record knows nothing: one of this
// release would not have started.
func nobodyPlaces(ctx context.Context, adm *kadm.Client, there map[string]plannedTopic, c *pb.ClusterConfig) error {
	groups, err := adm.DescribeGroups(ctx)
	if err != nil {
		return fmt.Errorf("ask Kafka who consumes: %w", err)
	}
	for _, g := range groups.Sorted() {
		for name := range g.AssignedPartitions() {
			for bare, topic := range there {
				if topic.name == name && c.Keyed[bare] == nil {
					return fmt.Errorf("group %s consumes %s: %w", g.Group, name, ErrEarlierRelease)
				}
			}
		}
	}
	return nil
}

func repairTopic(ctx context.Context, k *Kafka, client *kgo.Client, topic plannedTopic, noted *pb.KeyedTopic, write bool) (TopicRepair, error) {
	s := spread{topic: topic.plan.Name, over: spreadFor(topic.plan, topic.partitions)}
	if noted != nil {
		s.over = noted.Spread
	}
	report := TopicRepair{Moves: []KeyMove{}, Topic: topic.name, Noted: noted.GetPartitions(), Partitions: topic.partitions, Spread: s.over}
	if write && topic.partitions < s.over {
		if err := extend(ctx, k, client, topic, s.over); err != nil {
			return report, err
		}
	}
	if topic.plan.Cleanup != schemas.Compact {
		return report, nil
	}
	suspects, err := s.suspects(ctx, k)
	if err != nil {
		return report, err
	}
	r := &repair{k: k, spread: s, write: write, moves: map[KeyMove]int{}}
	for part := range slices.Chunk(suspects, repairKeys) {
		if err := r.run(ctx, part); err != nil {
			return report, err
		}
	}
	report.Stale = r.stale
	for move, n := range r.moves {
		move.Keys = n
		report.Moves = append(report.Moves, move)
	}
	slices.SortFunc(report.Moves, func(a, b KeyMove) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return report, nil
}

// extend adds partitions, and waits until they show.
func extend(ctx context.Context, k *Kafka, client *kgo.Client, topic plannedTopic, n int32) error {
	if err := addPartitions(ctx, kadm.NewClient(client), topic.name, n); err != nil {
		return err
	}
	for {
		there, err := listPlanned(ctx, k, client)
		if err != nil || there[topic.plan.Name].partitions >= n {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
