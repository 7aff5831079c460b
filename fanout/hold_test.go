package fanout

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// triggers runs the role alone, with the rules of some apps, until stop is called or the test ends.
func (w *world) triggers(o TriggerOptions) (t *Triggers, stop func()) {
	w.Helper()
	o.Kafka, o.Registry, o.Redis = w.kafka, w.registry, w.redis
	t, err := NewTriggers(o)
	if err != nil {
		w.Fatal(err)
	}
	return t, w.runs(t.Run)
}

func orderShipped(app, id string) []byte {
	return fmt.Appendf(nil, `{"app":%q,"id":%q,"name":"order.shipped","user":"u0"}`, app, id)
}

// held waits for n records of held events on a platform.
func (w *world) held(p pb.Platform, n int) (all []*pb.HeldEvent) {
	w.Helper()
	streamtest.Read(w, w.kafka, func(r *kgo.Record) bool {
		e := &pb.HeldEvent{}
		if err := proto.Unmarshal(r.Value, e); err != nil {
			w.Fatal(err)
		}
		all = append(all, e)
		return len(all) < n
	}, schemas.TopicHeld(p))
	return all
}

// fired are the apps and event orders of the urgent deliveries on a platform now: how many there are of each run.
func (w *world) fired(p pb.Platform) map[string]int {
	w.Helper()
	of := map[string]int{}
	for _, r := range w.all(schemas.TopicSend(p, pb.Class_CLASS_URGENT)) {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			w.Fatal(err)
		}
		of[d.App]++
	}
	return of
}

// A process is started with a file that lacks an app's rules. Its events wait, those behind them on the same partition do not, and
// once the file is mended they fire.
func TestEventsWaitForTheRulesOfTheirApp(t *testing.T) {
	w := newWorld(t, append(devices("shop", 10), devices("blog", 10)...)...)
	blog := shipped("")
	blog.App = "blog"
	_, stop := w.triggers(TriggerOptions{Apps: []string{"blog"}, Rules: []Rule{blog}})
	w.happens(orderShipped("shop", "e1"), orderShipped("blog", "e1"), orderShipped("shop", "e2"), orderShipped("shop", "e1"))
	accepted := time.Now()
	w.urgentUntil(fcm, 3)
	for _, p := range schemas.Platforms {
		w.held(p, 3)
	}
	if of := w.fired(fcm); of["blog"] != 3 || of["shop"] != 0 {
		t.Errorf("without the shop's rules: %v", of)
	}
	stop()
	_, stop = w.triggers(TriggerOptions{Apps: []string{"blog"}, Rules: []Rule{blog}}) // a restart mends nothing
	w.held(fcm, 6)
	stop()
	for range 2 { // and once mended they fire once
		_, stop = w.triggers(TriggerOptions{Apps: []string{"shop", "blog"}, Rules: []Rule{shipped(""), blog}})
		w.urgentUntil(fcm, 9)
		w.urgentUntil(apns, 12)
		stop()
	}
	for _, r := range w.all(schemas.TopicSend(fcm, pb.Class_CLASS_URGENT)) {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		if late := time.UnixMilli(d.ExpiresAt).Sub(accepted); late > ttl(d.Message)+time.Second {
			t.Errorf("%s expires %v after the event", d.App, late)
		}
	}
	if of := w.fired(fcm); of["blog"] != 3 || of["shop"] != 6 {
		t.Errorf("with the shop's rules: %v", of)
	}
	if got := w.dead(schemas.TopicDeadOf(schemas.TopicEvents)); len(got) != 0 {
		t.Errorf("dead events: %v", got)
	}
}

func TestEventsOfAnAppWithoutRulesOnPurposeAreForgotten(t *testing.T) {
	w := newWorld(t, devices("shop", 10)...)
	blog := shipped("")
	blog.App = "blog"
	w.triggers(TriggerOptions{Apps: []string{"shop"}})
	w.happens(orderShipped("shop", "e1"), orderShipped("blog", "e1"))
	if e := w.held(fcm, 1); string(e[0].Event) != string(orderShipped("blog", "e1")) {
		t.Errorf("held is %s", e[0].Event)
	}
}

func TestEventsDoNotWaitForEver(t *testing.T) {
	w := newWorld(t)
	w.triggers(TriggerOptions{Now: func() time.Time { return time.Now().Add(heldFor + time.Minute) }})
	w.happens(orderShipped("shop", "e1"))
	streamtest.Read(t, w.kafka, func(r *kgo.Record) bool {
		d := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		if d.Reason != noRules || string(d.Raw) != string(orderShipped("shop", "e1")) || d.Source.Topic != schemas.TopicEvents {
			t.Errorf("got %v", d)
		}
		return false
	}, schemas.TopicDeadOf(schemas.TopicEvents))
}

// What is kept in place would hold its partition's offset back until it was too old to be read again.
func TestHeldEventsGoRound(t *testing.T) {
	w := newWorld(t)
	all, _ := w.triggers(TriggerOptions{})
	w.happens(orderShipped("shop", "e1"))
	first := w.held(fcm, 1)[0]
	h := all.all[1].hold
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		h.look(time.Now())
		h.mu.Lock()
		n := len(h.kept)
		h.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are kept", n)
		}
	}
	h.look(time.Now().Add(holdRound))
	if again := w.held(fcm, 2)[1]; !proto.Equal(again, first) {
		t.Errorf("it became %v, and was %v", again, first)
	}
}

func TestOnlySoMuchOfAnAppIsHeld(t *testing.T) {
	w := newWorld(t)
	tr, err := NewTriggers(TriggerOptions{Kafka: w.kafka, Registry: w.registry, Redis: w.redis})
	if err != nil {
		t.Fatal(err)
	}
	h := tr.all[0].hold
	for i := range heldEvents {
		if !h.room("flood") {
			t.Fatalf("no room for event %d", i)
		}
	}
	if h.room("flood") || !h.room("shop") {
		t.Error("one app's events take another's room, or more than their own")
	}
	for i := range heldApps {
		h.room(fmt.Sprint("made-up-", i))
	}
	if h.room("one-more") || len(h.held) > heldApps {
		t.Errorf("%d apps are counted", len(h.held))
	}
}
