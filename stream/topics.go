package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// TopicChange is one difference between the topic plan and a cluster.
type TopicChange struct {
	// Topic is the full name.
	Topic string `json:"topic"`
	// Kind is create, config, partitions, or conflict for what cannot be changed without moving records.
	Kind string `json:"kind"`
	// Detail says what is, and what the plan wants.
	Detail string `json:"detail"`

	plan   schemas.Topic
	config map[string]string
}

// Kinds of TopicChange.
const (
	CreateTopic   = "create"
	SetConfig     = "config"
	AddPartitions = "partitions"
	Conflict      = "conflict"
)

// PlanTopics compares the plan with the cluster. An empty answer means that nothing is to be done. More partitions and a
// longer retention than planned are an operator's choice, not a difference.
func PlanTopics(ctx context.Context, k *Kafka) ([]TopicChange, error) {
	client, err := k.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return planTopics(ctx, k, client)
}

func planTopics(ctx context.Context, k *Kafka, client *kgo.Client) ([]TopicChange, error) {
	there, err := listPlanned(ctx, k, client)
	if err != nil {
		return nil, err
	}
	configs, err := topicConfigs(ctx, kadm.NewClient(client), there)
	if err != nil {
		return nil, err
	}
	var c *pb.ClusterConfig
	if _, ok := there[schemas.TopicControl]; ok {
		if c, err = readCluster(ctx, k); err != nil {
			return nil, err
		}
	}
	var changes []TopicChange
	for _, plan := range schemas.Plan() {
		noted := c.GetKeyed()[plan.Name]
		topic, ok := there[plan.Name]
		if !ok {
			if noted != nil { // it was deleted, and is made again as it was
				plan.Partitions = noted.Partitions
			}
			changes = append(changes, TopicChange{
				Topic: k.Topic(plan.Name), Kind: CreateTopic, plan: plan,
				Detail: fmt.Sprintf("%d partitions, %s", plan.Partitions, wanted(plan)),
			})
			continue
		}
		problem, err := conflict(ctx, k, topic, noted)
		if err != nil {
			return nil, err
		}
		changes = append(changes, compare(topic, problem, configs[topic.name])...)
	}
	return changes, nil
}

// plannedTopic is one of the plan, as it is on a cluster.
type plannedTopic struct {
	plan       schemas.Topic
	name       string // full
	partitions int32
}

// listPlanned finds the topics of the plan that there are, by their names without prefix, if this user may see them all.
func listPlanned(ctx context.Context, k *Kafka, client *kgo.Client) (map[string]plannedTopic, error) {
	there, hidden, err := listVisible(ctx, k, client)
	return there, errors.Join(err, hidden)
}

// listVisible is listPlanned for a user who may not see them all; hidden says which. kadm would list none then.
func listVisible(ctx context.Context, k *Kafka, client *kgo.Client) (there map[string]plannedTopic, hidden, err error) {
	plan := map[string]schemas.Topic{}
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range schemas.Plan() {
		name := k.Topic(t.Name)
		plan[name] = t
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = &name
		req.Topics = append(req.Topics, asked)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, nil, fmt.Errorf("ask Kafka at %v for topics: %w", k.Brokers, err)
	}
	there = map[string]plannedTopic{}
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		switch {
		case t.Topic == nil || errors.Is(err, kerr.UnknownTopicOrPartition):
		case err != nil:
			hidden = errors.Join(hidden, fmt.Errorf("topic %s: %w", *t.Topic, err))
		default:
			p := plan[*t.Topic]
			there[p.Name] = plannedTopic{p, *t.Topic, int32(len(t.Partitions))}
		}
	}
	return there, hidden, nil
}

// topicConfigs are by full name.
func topicConfigs(ctx context.Context, adm *kadm.Client, there map[string]plannedTopic) (map[string]map[string]string, error) {
	names := make([]string, 0, len(there))
	for _, t := range there {
		names = append(names, t.name)
	}
	configs := map[string]map[string]string{}
	if len(names) == 0 {
		return configs, nil
	}
	described, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe topic configurations: %w", err)
	}
	for _, r := range described {
		if errors.Is(r.Err, kerr.UnknownTopicOrPartition) { // deleted since it was listed
			maps.DeleteFunc(there, func(_ string, t plannedTopic) bool { return t.name == r.Name })
			continue
		}
		if r.Err != nil {
			return nil, fmt.Errorf("describe configuration of topic %s: %w", r.Name, r.Err)
		}
		configs[r.Name] = map[string]string{}
		for _, c := range r.Configs {
			configs[r.Name][c.Key] = c.MaybeValue()
		}
	}
	return configs, nil
}

func wanted(t schemas.Topic) string {
	if t.Cleanup == schemas.Compact {
		return "cleanup.policy=compact"
	}
	return fmt.Sprintf("cleanup.policy=delete, retention.ms=%d", t.Retention.Milliseconds())
}

// conflict says what is wrong with the partitions of a keyed topic, or "". noted is what the cluster's record has of it, if
// anything: then that is what counts, and the plan does not.
func conflict(ctx context.Context, k *Kafka, topic plannedTopic, noted *pb.KeyedTopic) (string, error) {
	harm, keyed := breaks[topic.plan.Name]
	switch {
	case !keyed:
	case noted != nil && topic.partitions != noted.Partitions:
		return fmt.Sprintf("has %d partitions, and had %d. A key must keep its partition, or %s", topic.partitions, noted.Partitions, harm), nil
	case noted == nil && topic.partitions < topic.plan.Partitions:
		return fmt.Sprintf("has %d partitions, and the plan has %d. Records are found by key, so they would have to be moved", topic.partitions, topic.plan.Partitions), nil
	case noted == nil && topic.plan.Cleanup == schemas.Compact && topic.partitions > 1:
		n, err := countStrays(ctx, k, spread{topic: topic.plan.Name, over: spreadFor(topic.plan, topic.partitions)})
		if n > 0 {
			return fmt.Sprintf("has %d partitions, and %d of its records lie where another number puts them. A key must keep its partition, or %s",
				topic.partitions, n, harm), nil
		}
		return "", err
	}
	return "", nil
}

// countStrays counts the records of a topic whose keys do not lie as s says.
func countStrays(ctx context.Context, k *Kafka, s spread) (n int, err error) {
	err = scan(ctx, k, s.topic, func(r ViewRecord) {
		if s.home(r.Key) != r.Partition {
			n++
		}
	})
	return n, err
}

func conflictError(topic, detail string) error {
	return fmt.Errorf("topic %s %s: run belfry topics repair", topic, detail)
}

// compare lists how a topic that exists differs. problem is its conflict, if it has one.
func compare(topic plannedTopic, problem string, config map[string]string) (changes []TopicChange) {
	plan := topic.plan
	add := func(kind, detail string, config map[string]string) {
		changes = append(changes, TopicChange{Topic: topic.name, Kind: kind, Detail: detail, plan: plan, config: config})
	}
	switch {
	case problem != "":
		add(Conflict, problem, nil)
	case topic.partitions < plan.Partitions && breaks[plan.Name] == "":
		add(AddPartitions, fmt.Sprintf("%d partitions → %d", topic.partitions, plan.Partitions), nil)
	}
	if got := config["cleanup.policy"]; got != string(plan.Cleanup) {
		add(SetConfig, fmt.Sprintf("cleanup.policy %s → %s", got, plan.Cleanup),
			map[string]string{"cleanup.policy": string(plan.Cleanup)})
	}
	want := plan.Retention.Milliseconds()
	got, err := strconv.ParseInt(config["retention.ms"], 10, 64)
	if plan.Cleanup == schemas.Delete && err == nil && got >= 0 && got < want {
		add(SetConfig, fmt.Sprintf("retention.ms %d → %d", got, want),
			map[string]string{"retention.ms": strconv.FormatInt(want, 10)})
	}
	return changes
}

// ApplyTopics makes the cluster follow the plan, and returns what it changed. It never deletes anything. Conflicts are
// returned as an error after everything else is done.
func ApplyTopics(ctx context.Context, k *Kafka) ([]TopicChange, error) {
	client, err := k.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	changes, err := planTopics(ctx, k, client)
	if err != nil {
		return nil, err
	}
	var conflicts error
	done := changes[:0:0]
	for _, group := range groupChanges(changes) {
		if c := group[0]; c.Kind == Conflict {
			conflicts = errors.Join(conflicts, conflictError(c.Topic, c.Detail))
			continue
		}
		if err := applyChanges(ctx, k, adm, group); err != nil {
			return done, err
		}
		done = append(done, group...)
	}
	return done, conflicts
}

// groupChanges puts creations of the same shape together, so that a new cluster takes a few requests and not fifty.
func groupChanges(changes []TopicChange) (groups [][]TopicChange) {
	shape := func(c TopicChange) string {
		if c.Kind == CreateTopic {
			return c.Kind + c.Detail
		}
		return c.Kind + c.Topic + c.Detail
	}
	slices.SortStableFunc(changes, func(a, b TopicChange) int { return cmp.Compare(shape(a), shape(b)) })
	for _, c := range changes {
		if n := len(groups); n > 0 && shape(groups[n-1][0]) == shape(c) {
			groups[n-1] = append(groups[n-1], c)
			continue
		}
		groups = append(groups, []TopicChange{c})
	}
	return groups
}

func applyChanges(ctx context.Context, k *Kafka, adm *kadm.Client, group []TopicChange) error {
	c := group[0]
	switch c.Kind {
	case CreateTopic:
		return createTopics(ctx, adm, group)
	case AddPartitions:
		return addPartitions(ctx, adm, c.Topic, c.plan.Partitions)
	case SetConfig:
		var alter []kadm.AlterConfig
		for key, value := range c.config {
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
		}
		resp, err := adm.AlterTopicConfigs(ctx, alter, c.Topic)
		if err != nil {
			return fmt.Errorf("configure %s: %w", c.Topic, err)
		}
		for _, r := range resp {
			if r.Err != nil {
				return fmt.Errorf("configure %s: %w", c.Topic, r.Err)
			}
		}
	}
	return nil
}

func addPartitions(ctx context.Context, adm *kadm.Client, topic string, n int32) error {
	resp, err := adm.UpdatePartitions(ctx, int(n), topic)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	return nil
}

func createTopics(ctx context.Context, adm *kadm.Client, group []TopicChange) error {
	plan := group[0].plan
	policy := string(plan.Cleanup)
	configs := map[string]*string{"cleanup.policy": &policy}
	if plan.Cleanup == schemas.Delete {
		retention := strconv.FormatInt(plan.Retention.Milliseconds(), 10)
		configs["retention.ms"] = &retention
	}
	names := make([]string, len(group))
	for i, c := range group {
		names[i] = c.Topic
	}
	// -1 replicas: the broker's default.replication.factor, which whoever runs the cluster has chosen.
	resp, err := adm.CreateTopics(ctx, plan.Partitions, -1, configs, names...)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for _, r := range resp {
		if r.Err != nil && !errors.Is(r.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", r.Topic, r.Err)
		}
	}
	return nil
}

// WaitForTopics waits until every broker's answer shows the plan, which is a moment after it was applied.
func WaitForTopics(ctx context.Context, k *Kafka) error {
	for {
		changes, err := PlanTopics(ctx, k)
		if err == nil && !slices.ContainsFunc(changes, func(c TopicChange) bool { return c.Kind != Conflict }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
