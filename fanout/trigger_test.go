package fanout

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// happens produces events, in either form, under the key of user u0.
func (w *world) happens(values ...[]byte) {
	w.Helper()
	for _, v := range values {
		streamtest.Produce(w, w.kafka, &kgo.Record{Topic: schemas.TopicEvents, Key: []byte("shop/u0"), Value: v})
	}
}

// urgent waits for n deliveries on a platform's urgent topic, and for those of one more event: the last.
func (w *world) urgentUntil(p pb.Platform, n int) {
	w.Helper()
	streamtest.Read(w, w.kafka, func(*kgo.Record) bool { n--; return n > 0 }, schemas.TopicSend(p, pb.Class_CLASS_URGENT))
}

func TestRuleAnswersAnEventOnce(t *testing.T) {
	w := newWorld(t, devices("shop", 20)...)
	stop := w.start("a", shipped("fields.order > 1"))
	event := func(app, id, name string, order float64) []byte {
		value, err := proto.Marshal(&pb.Event{
			App: app, Id: id, Name: name, User: "u0",
			Fields: map[string]*pb.Value{"order": {Kind: &pb.Value_Number{Number: order}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	again := event("shop", "e1", "order.shipped", 42)
	w.happens(
		[]byte("{"),
		event("shop", "e0", "order.shipped", 1), // does not meet the condition
		event("shop", "e0", "order.paid", 42),   // no rule
		again, again,
		[]byte(`{"app":"shop","id":"e1","name":"order.shipped","user":"u0","fields":{"order":42}}`),
	)
	w.urgentUntil(fcm, 3)
	stop()
	w.start("a", shipped("fields.order > 1"))
	w.happens(again, event("shop", "last", "order.shipped", 43))
	for p, n := range map[pb.Platform]int{apns: 4, fcm: 3, webpush: 3} { // of u0's ten devices
		w.urgentUntil(p, 2*n)
		fired := map[string]int{}
		for _, r := range w.all(schemas.TopicSend(p, pb.Class_CLASS_URGENT)) {
			d := &pb.Delivery{}
			if err := proto.Unmarshal(r.Value, d); err != nil {
				t.Fatal(err)
			}
			fired[d.Variables["event.order"]]++
			if d.Run != "~rule.shipped" || d.Message == nil || d.Class != pb.Class_CLASS_URGENT || d.ExpiresAt <= d.CreatedAt {
				t.Errorf("got %v", d)
			}
			if id := schemas.DeliveryID("shop", "~rule.shipped/e1", d.Device, 0); d.Variables["event.order"] == "42" && string(id[:]) != string(d.Id) {
				t.Errorf("device %s: the id is not that of the rule, the event and the device", d.Device)
			}
		}
		if fired["42"] != n || fired["43"] != n || len(fired) != 2 {
			t.Errorf("%s: deliveries by order: %v, want %d of 42 and 43", p, fired, n)
		}
	}
	if got := w.dead(schemas.TopicDeadOf(schemas.TopicEvents)); got["undecodable"] != 1 || len(got) != 1 {
		t.Errorf("dead events: %v", got)
	}
}

func TestEventReadAgainAfterACrashStillFires(t *testing.T) {
	w := newWorld(t, devices("shop", 10)...)
	value := []byte(`{"app":"shop","id":"e1","name":"order.shipped","user":"u0"}`)
	w.happens(value, value)
	// What a process leaves behind that was killed between remembering the event and committing its deliveries.
	var at []string
	for _, r := range w.all(schemas.TopicEvents) {
		at = append(at, coordinates(r.Partition, r.Offset))
	}
	key := firedKey(w.redis, fcm, "shop", "shipped", "e1")
	if err := w.redis.Set(t.Context(), key, at[0], 0).Err(); err != nil {
		t.Fatal(err)
	}
	w.start("a", shipped(""))
	w.urgentUntil(fcm, 3)
	if got := w.deliveries(fcm, pb.Class_CLASS_URGENT); len(got) != 3 {
		t.Errorf("%d deliveries", len(got))
	}
}
