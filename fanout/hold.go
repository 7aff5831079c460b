package fanout

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// heldEvents is how many events of an app one process puts by on a platform: more are dead letters. It bounds what is copied
	// where an app was forgotten whose events nobody means to answer.
	heldEvents = 10_000
	// heldApps bounds the apps that are counted, by names that anybody may make up who may write to belfry.events.
	heldApps = 1000
	// heldFor is how long an event waits: no delivery of it could live longer.
	heldFor = schemas.MaxTTL
	// holdEvery is how soon the end of an assignment is noticed, and holdRound when what waits is written again behind the others:
	// what lies behind may be of an app that is known here, and what is kept in place holds its partition's offset back.
	holdEvery = 200 * time.Millisecond
	holdRound = 10 * time.Minute
	// holdRecords and holdBytes bound what waits in memory of each partition.
	holdRecords = 512
	holdBytes   = 1 << 20

	// noRules is why an event is a dead letter whose app's rules stayed unknown.
	noRules = "no-rules"
)

// hold keeps the events of apps whose rules this process does not know: its file may be older than the app, or one for another
// role. They wait on a topic of their own, so that they stand before nobody else's, and are answered as soon as a process takes
// them that knows the rules. What rules a process knows never changes, so it looks at each record once, and then only keeps it.
type hold struct {
	trigger  *trigger
	consumer *stream.Consumer
	// by is this process, in this life.
	by string

	mu   sync.Mutex // guards all below
	kept []*heldEvent
	// held is how many events of each app this process has put by.
	held map[string]int
}

type heldEvent struct {
	*pb.HeldEvent
	ctx   context.Context
	task  *stream.Task
	since time.Time
}

func newHold(t *trigger, k *stream.Kafka) *hold {
	h := &hold{
		trigger: t, by: k.Instance + "/" + strconv.FormatInt(time.Now().UnixNano(), 36),
		held: map[string]int{},
	}
	h.consumer = stream.NewConsumer(k, stream.Options{
		Name:    schemas.HoldRole(t.platform),
		Topics:  []string{schemas.TopicHeld(t.platform)},
		Records: holdRecords,
		Bytes:   holdBytes,
		Handle:  h.handle,
	})
	return h
}

// room counts one more event of an app, and says whether it may wait. The first is worth a word.
func (h *hold) room(app string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, known := h.held[app]
	if n >= heldEvents || !known && len(h.held) >= heldApps {
		return false
	}
	h.held[app]++
	if !known && h.trigger.speaks {
		h.trigger.log.Error("the configuration of this process does not say what an app's events are answered with: they wait. "+
			"Start it with the file that has the app's rules, or with \"rules: []\" under apps."+app+" where there are none", "app", app)
	}
	return true
}

// begin is an event's first record here.
func (h *hold) begin(t *stream.Task) stream.Output {
	return h.output(t.Key, &pb.HeldEvent{Event: t.Value, Source: t.Source(), AcceptedAt: t.Timestamp.UnixMilli()})
}

func (h *hold) output(key []byte, e *pb.HeldEvent) stream.Output {
	e.By = h.by
	value, err := proto.Marshal(e)
	if err != nil {
		panic("fanout: encode held event: " + err.Error()) // its strings are this process's own and Kafka's
	}
	return stream.Output{Topic: schemas.TopicHeld(h.trigger.platform), Key: key, Value: value}
}

// run ends when ctx does and everything that is kept has been given back.
func (h *hold) run(ctx context.Context) error { return h.consumer.RunTicking(ctx, holdEvery, h.look) }

func (h *hold) handle(ctx context.Context, tasks []*stream.Task) {
	for _, t := range tasks {
		if ctx.Err() != nil {
			t.Release()
			continue
		}
		h.take(ctx, t)
	}
}

// take answers an event whose app is known here. Any other it keeps, and writes it again first if another process did last, or
// this one before it was started: so all that was there then is looked at soon, however much that is.
func (h *hold) take(ctx context.Context, t *stream.Task) {
	held := &pb.HeldEvent{}
	err := proto.Unmarshal(t.Value, held)
	var e *pb.Event
	if err == nil {
		e, err = events.Parse(held.Event)
	}
	if err != nil {
		t.Done(h.trigger.deadLetter(t, "undecodable", err)...)
		return
	}
	r := recorded{held.Source.GetPartition(), held.Source.GetOffset(), time.UnixMilli(held.AcceptedAt)}
	switch {
	case h.trigger.knows(e.App):
		outs, err := h.trigger.answer(ctx, e, r)
		if err != nil {
			t.Release() // the assignment is over
			return
		}
		t.Done(outs...)
	case h.trigger.now().Sub(r.at) > heldFor:
		t.Done(h.trigger.deadLetter(origin(t, held), noRules, fmt.Errorf("for %v no process knew the rules of app %q", heldFor, e.App))...)
	case held.By != h.by:
		h.room(e.App) // it says so
		t.Done(h.output(t.Key, held))
	default:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.kept = append(h.kept, &heldEvent{held, ctx, t, time.Now()})
	}
}

// origin is a held event's record as it lay on belfry.events, for its dead letter.
func origin(t *stream.Task, e *pb.HeldEvent) *stream.Task {
	return &stream.Task{
		Topic: e.Source.GetTopic(), Partition: e.Source.GetPartition(), Offset: e.Source.GetOffset(),
		Key: t.Key, Value: e.Event, Timestamp: time.UnixMilli(e.AcceptedAt),
	}
}

// look gives back what is kept of assignments that are over, and writes again what has been kept for a round.
func (h *hold) look(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = slices.DeleteFunc(h.kept, func(e *heldEvent) bool {
		switch {
		case e.ctx.Err() != nil:
			e.task.Release()
		case now.Sub(e.since) >= holdRound:
			e.task.Done(h.output(e.task.Key, e.HeldEvent))
		default:
			return false
		}
		return true
	})
}
