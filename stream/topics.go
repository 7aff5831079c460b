package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/belfry/belfry/schemas"
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

// keyed topics hold state by key, or are read by who keeps state by key (results: a run's account; replays: one chain of
// steps): adding partitions would part a key from its past.
var keyed = func() []string {
	topics := []string{schemas.TopicDevices, schemas.TopicCommands, schemas.TopicCampaigns, schemas.TopicAccounts}
	for _, p := range schemas.Platforms {
		topics = append(topics, schemas.TopicResults(p), schemas.TopicReplays(p))
	}
	return topics
}()

// PlanTopics compares the plan with the cluster. An empty answer means that nothing is to be done. More partitions and a
// longer retention than planned are an operator's choice, not a difference.
func PlanTopics(ctx context.Context, k *Kafka) ([]TopicChange, error) {
	client, err := k.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return planTopics(ctx, k, kadm.NewClient(client))
}

func planTopics(ctx context.Context, k *Kafka, adm *kadm.Client) ([]TopicChange, error) {
	var names []string
	for _, t := range schemas.Plan() {
		names = append(names, k.Topic(t.Name))
	}
	there, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("ask Kafka at %v for topics: %w", k.Brokers, err)
	}
	configs, err := topicConfigs(ctx, adm, there)
	if err != nil {
		return nil, err
	}
	var changes []TopicChange
	for _, plan := range schemas.Plan() {
		name := k.Topic(plan.Name)
		detail, ok := there[name]
		if !ok || errors.Is(detail.Err, kerr.UnknownTopicOrPartition) {
			changes = append(changes, TopicChange{
				Topic: name, Kind: CreateTopic, plan: plan,
				Detail: fmt.Sprintf("%d partitions, %s", plan.Partitions, wanted(plan)),
			})
			continue
		}
		if detail.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, detail.Err)
		}
		changes = append(changes, compare(plan, name, int32(len(detail.Partitions)), configs[name])...)
	}
	return changes, nil
}

func topicConfigs(ctx context.Context, adm *kadm.Client, there kadm.TopicDetails) (map[string]map[string]string, error) {
	var names []string
	for name, t := range there {
		if t.Err == nil {
			names = append(names, name)
		}
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
			delete(there, r.Name)
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

// compare lists how a topic that exists differs.
func compare(plan schemas.Topic, name string, partitions int32, config map[string]string) (changes []TopicChange) {
	add := func(kind, detail string, config map[string]string) {
		changes = append(changes, TopicChange{Topic: name, Kind: kind, Detail: detail, plan: plan, config: config})
	}
	switch {
	case partitions < plan.Partitions && slices.Contains(keyed, plan.Name):
		add(Conflict, fmt.Sprintf("%d partitions, the plan has %d; records are found by key, so they would have to be moved",
			partitions, plan.Partitions), nil)
	case partitions < plan.Partitions:
		add(AddPartitions, fmt.Sprintf("%d partitions → %d", partitions, plan.Partitions), nil)
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
	changes, err := planTopics(ctx, k, adm)
	if err != nil {
		return nil, err
	}
	var conflicts error
	done := changes[:0:0]
	for _, group := range groupChanges(changes) {
		if c := group[0]; c.Kind == Conflict {
			conflicts = errors.Join(conflicts, fmt.Errorf("topic %s: %s", c.Topic, c.Detail))
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
		resp, err := adm.UpdatePartitions(ctx, int(c.plan.Partitions), c.Topic)
		if err == nil {
			err = resp.Error()
		}
		if err != nil {
			return fmt.Errorf("add partitions to %s: %w", c.Topic, err)
		}
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
