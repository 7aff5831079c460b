package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// firedFor is how long it is remembered that an event id has fired: as long as belfry.events keeps the event.
const firedFor = 7 * 24 * time.Hour

// TriggerOptions say what Triggers work on.
type TriggerOptions struct {
	Kafka    *stream.Kafka
	Registry *registry.Registry
	// Redis remembers which events have fired.
	Redis *registry.Redis
	// Apps are those whose rules are known here, if only that they have none: events of others wait (hold.go).
	Apps []string
	// Rules say which events are answered with a message.
	Rules []Rule
	// Now is time.Now when nil.
	Now func() time.Time
}

// Triggers is the role that answers events with urgent messages. It is apart from [Fanout], whose work can wait. Any number
// of instances share the work.
type Triggers struct{ all []*trigger }

// NewTriggers makes the role. It fails on rules that do not compile, naming every fault.
func NewTriggers(o TriggerOptions) (*Triggers, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	rules, err := compileRules(o.Rules)
	if err != nil {
		return nil, err
	}
	t := &Triggers{}
	for i, p := range schemas.Platforms {
		t.all = append(t.all, newTrigger(p, i == 0, rules, o))
	}
	return t, nil
}

// Run works until ctx is done.
func (t *Triggers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, one := range t.all {
		group.Go(func() error { return one.consumer.Run(ctx) })
		group.Go(func() error { return one.hold.run(ctx) })
	}
	return group.Wait()
}

// trigger answers events with urgent deliveries on one platform. Each platform has a group of its own over all events,
// so that none waits for another's transaction.
type trigger struct {
	platform pb.Platform
	consumer *stream.Consumer
	hold     *hold
	// speaks says that this platform's group is the one that writes dead letters, so that they are written once.
	speaks   bool
	apps     []string
	rules    map[ruleKey][]*rule
	registry *registry.Registry
	redis    *registry.Redis
	patience *patience
	log      *slog.Logger
	now      func() time.Time
}

func newTrigger(p pb.Platform, speaks bool, rules map[ruleKey][]*rule, o TriggerOptions) *trigger {
	name := "trigger." + schemas.PlatformName(p)
	log := o.Kafka.Log.With("role", name)
	t := &trigger{
		platform: p, speaks: speaks, apps: o.Apps, rules: rules, registry: o.Registry, redis: o.Redis, now: o.Now,
		patience: &patience{kafka: o.Kafka, log: log}, log: log,
	}
	t.consumer = stream.NewConsumer(o.Kafka, stream.Options{
		Name:   name,
		Topics: []string{schemas.TopicEvents},
		Handle: t.handle,
	})
	t.hold = newHold(t, o.Kafka)
	return t
}

func (t *trigger) handle(ctx context.Context, tasks []*stream.Task) {
	for _, task := range tasks {
		outs, err := t.take(ctx, task)
		if err != nil {
			task.Release() // the assignment is over
			continue
		}
		task.Done(outs...)
	}
}

// take makes what one event calls for. Its only error is that ctx is over.
func (t *trigger) take(ctx context.Context, task *stream.Task) ([]stream.Output, error) {
	e, err := events.Parse(task.Value)
	switch {
	case err != nil:
		return t.deadLetter(task, "undecodable", err), nil
	case t.knows(e.App):
		return t.answer(ctx, e, recorded{task.Partition, task.Offset, task.Timestamp})
	case !t.hold.room(e.App):
		return t.deadLetter(task, noRules, fmt.Errorf("the rules of app %q are not known here, and %d of its events wait for them", e.App, heldEvents)), nil
	}
	return []stream.Output{t.hold.begin(task)}, nil
}

// recorded is where an event lies on its topic, and since when.
type recorded struct {
	partition int32
	offset    int64
	at        time.Time
}

func (t *trigger) knows(app string) bool { return slices.Contains(t.apps, app) }

// answer makes the deliveries of all rules that an event fires. Its only error is that ctx is over.
func (t *trigger) answer(ctx context.Context, e *pb.Event, r recorded) ([]stream.Output, error) {
	if e.At == 0 {
		e.At = r.at.UnixMilli()
	}
	var outs []stream.Output
	for _, rule := range t.rules[ruleKey{e.App, e.Name}] {
		if !slices.Contains(rule.platforms, t.platform) || !rule.matches(e, t.log) {
			continue
		}
		of, err := t.deliveries(ctx, r, rule, e)
		if err != nil {
			return nil, err
		}
		outs = append(outs, of...)
	}
	return outs, nil
}

func (t *trigger) deadLetter(task *stream.Task, reason string, err error) []stream.Output {
	if !t.speaks {
		return nil
	}
	return []stream.Output{task.DeadLetter(schemas.TopicDeadOf(schemas.TopicEvents), reason, err.Error())}
}

// deliveries are a rule's answer to an event: none when its id has fired before.
func (t *trigger) deliveries(ctx context.Context, record recorded, r *rule, e *pb.Event) ([]stream.Output, error) {
	var devices []*pb.Device
	err := t.patience.try(ctx, "look up the devices of an event's user", func() error {
		first, err := t.first(ctx, record, r, e)
		if err != nil || !first {
			devices = nil
			return err
		}
		devices, err = t.registry.UserDevices(ctx, e.App, e.User)
		return err
	})
	if err != nil {
		return nil, err
	}
	extra := eventVariables(e)
	var outs []stream.Output
	for _, d := range devices {
		if d.Platform != t.platform || d.Target == nil {
			continue
		}
		id := schemas.DeliveryID(e.App, schemas.RunRule(r.Name)+"/"+e.Id, d.Id, 0)
		value, err := proto.Marshal(&pb.Delivery{
			Id: id[:], App: e.App, Run: schemas.RunRule(r.Name), Device: d.Id,
			Class:        pb.Class_CLASS_URGENT,
			Target:       d.Target,
			Locale:       d.Locale,
			Variables:    message.Variables(r.compiled.Names(), d, extra),
			Message:      r.Message,
			CreatedAt:    t.now().UnixMilli(),
			ExpiresAt:    record.at.Add(r.compiled.TTL()).UnixMilli(),
			RegisteredAt: d.RegisteredAt,
		})
		if err != nil {
			// What it is made of came out of decoded records and a checked configuration.
			panic("fanout: encode delivery: " + err.Error())
		}
		outs = append(outs, stream.Output{
			Topic: schemas.TopicSend(t.platform, pb.Class_CLASS_URGENT),
			Key:   schemas.Key(e.App, d.Id),
			Value: value,
		})
	}
	return outs, nil
}

// first says whether an event's id fires a rule for the first time. The record that did so is remembered with it: met
// again after a crash it is still the first.
func (t *trigger) first(ctx context.Context, record recorded, r *rule, e *pb.Event) (bool, error) {
	key := firedKey(t.redis, t.platform, e.App, r.Name, e.Id)
	at := coordinates(record.partition, record.offset)
	set, err := t.redis.SetNX(ctx, key, at, firedFor).Result()
	if err != nil || set {
		return set, err
	}
	by, err := t.redis.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return true, nil // it was forgotten this very moment
	}
	return by == at, err
}

// firedKey is where it is remembered which record fired a rule for an event id.
func firedKey(r *registry.Redis, p pb.Platform, app, rule, event string) string {
	return strings.Join([]string{r.Prefix + "fired", schemas.PlatformName(p), app, rule, event}, ":")
}

func coordinates(partition int32, offset int64) string {
	return fmt.Sprintf("%d/%d", partition, offset)
}

// eventVariables are what a rule's message may name of the event.
func eventVariables(e *pb.Event) map[string]string {
	vars := make(map[string]string, len(e.Fields)+1)
	for name, v := range e.Fields {
		vars["event."+name] = message.Text(v)
	}
	vars["event.name"] = e.Name
	return vars
}
