package stream

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
)

// Keyed topics hold state by key, or are read by who keeps state by key. Compaction, and what a consumer knows of a partition,
// are each partition's own: a key whose records lie on two has two states, and either may win. So a key lies where the spread
// that the cluster has noted puts it (ClusterConfig), never where the number of partitions would, which an operator can raise
// at any time. What lies elsewhere is a stray: a view passes over it, a consumer brings it home or to the dead letters, and
// RepairTopics ends it.

// breaks is what goes wrong where the keys of a topic have two partitions, by the topics that are keyed.
var breaks = func() map[string]string {
	all := map[string]string{
		schemas.TopicDevices:   "devices that are removed or changed stay as they were, and removed ones come back",
		schemas.TopicCommands:  "two processes decide on one campaign",
		schemas.TopicCampaigns: "a campaign goes back to an earlier state",
		schemas.TopicAccounts:  "a run's account goes back to an earlier state",
		schemas.TopicLanes:     "lanes that have stopped are shown",
		schemas.TopicControl:   "what was resumed is held back again",
	}
	for _, p := range schemas.Platforms {
		all[schemas.TopicResults(p)] = "one run has two accounts"
		all[schemas.TopicReplays(p)] = "what was replayed is sent again"
	}
	return all
}()

// spreadFor is the spread of a keyed topic that nothing is noted of yet.
func spreadFor(topic schemas.Topic, partitions int32) int32 {
	if topic.Partitions == 1 && topic.Cleanup == schemas.Delete {
		return 1 // whoever reads it must know all of it (replays), and may be one process only
	}
	return max(partitions, topic.Partitions)
}

// compacted says whether a keyed topic is, by the plan.
func compacted(topic string) bool {
	return slices.ContainsFunc(schemas.Plan(), func(t schemas.Topic) bool { return t.Name == topic && t.Cleanup == schemas.Compact })
}

// spread is how a topic's keys are spread over its partitions.
type spread struct {
	topic string // without prefix
	over  int32
	// partitions is how many the topic has, of which those from over on hold nothing.
	partitions int32
}

// spread returns nil where records may lie anywhere: the topic is not keyed, or k does not know its cluster (CheckCluster).
func (k *Kafka) spread(topic string) *spread {
	if s, ok := k.spreads[topic]; ok {
		return &s
	}
	return nil
}

// home is the partition that a key belongs on.
func (s spread) home(key []byte) int32 {
	if s.topic == schemas.TopicDevices {
		return schemas.DevicePartition(key, s.over)
	}
	if key == nil {
		key = []byte{} // the client's partitioner would choose any
	}
	return int32(murmur2.Partition(&kgo.Record{Key: key}, int(s.over)))
}

// murmur2 is Kafka's own way from a key to a partition. It keeps nothing between records that have keys.
var murmur2 = kgo.StickyKeyPartitioner(nil).ForTopic("")

func (s *spread) strays(key []byte, partition int32) bool {
	return s != nil && s.home(key) != partition
}

// atHome returns the tasks whose keys belong on this partition, and ends the others. Called by work alone.
func (p *partition) atHome(tasks []*Task) []*Task {
	if p.keys == nil {
		return tasks
	}
	return slices.DeleteFunc(tasks, func(t *Task) bool {
		strays := p.keys.strays(t.Key, t.Partition)
		if strays {
			t.Done(p.bring(t)...)
		}
		return strays
	})
}

// bring writes a stray again where it belongs. On a compacted topic it may be older than what lies there, which only
// RepairTopics can tell: there it goes to the dead letters.
func (p *partition) bring(t *Task) []Output {
	if repaired(t.Headers) {
		return nil
	}
	home := p.keys.home(t.Key)
	if !p.toldStray { // once an assignment
		p.toldStray = true
		p.log.Warn("somebody wrote records to a partition that is not their keys'", "topic", t.Topic, "partition", t.Partition,
			"offset", t.Offset, "belongs on", home)
	}
	if compacted(p.topic) {
		return []Output{t.DeadLetter(schemas.TopicDeadOf(p.topic), "misplaced",
			fmt.Sprintf("its key belongs on partition %d; belfry topics repair brings it there", home))}
	}
	return []Output{{Topic: t.Topic, Key: t.Key, Value: t.Value, Headers: t.Headers}}
}

// partitioner is by the spread for keyed topics, and Kafka's own by key for others. Devices have theirs in any case: what a
// provider said of one lies beside its registration.
func (k *Kafka) partitioner() kgo.Partitioner {
	byKey := kgo.StickyKeyPartitioner(nil)
	keyed := kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		noted := k.spread(k.bare(topic))
		return func(r *kgo.Record, n int) int {
			if noted != nil {
				return int(noted.home(r.Key))
			}
			return int(spread{topic: k.bare(topic), over: int32(n)}.home(r.Key))
		}
	})
	return partitionerFunc(func(topic string) kgo.TopicPartitioner {
		if _, ok := breaks[k.bare(topic)]; ok {
			return keyed.ForTopic(topic)
		}
		return byKey.ForTopic(topic)
	})
}

type partitionerFunc func(topic string) kgo.TopicPartitioner

func (f partitionerFunc) ForTopic(topic string) kgo.TopicPartitioner { return f(topic) }
