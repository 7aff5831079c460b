package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// letters are the dead letters of a dead topic, by the topic that the record lay on.
func letters(t *testing.T, k *stream.Kafka, dead string) map[string][]*pb.DeadLetter {
	t.Helper()
	found := map[string][]*pb.DeadLetter{}
	committed(t, k, dead, func(r *kgo.Record) {
		l := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, l); err != nil {
			t.Fatal(err)
		}
		topic := strings.TrimPrefix(l.GetSource().GetTopic(), k.Prefix)
		found[topic] = append(found[topic], l)
	})
	return found
}

// consumed maps every topic that a consumer reads to where its unreadable records go.
func consumed() map[string]string {
	dead := map[string]string{}
	for _, topic := range []string{schemas.TopicEvents, schemas.TopicDevices, schemas.TopicCommands} {
		dead[topic] = schemas.TopicDeadOf(topic)
	}
	for _, p := range schemas.Platforms {
		dead[schemas.TopicChunks(p)], dead[schemas.TopicResults(p)] = schemas.TopicDead(p), schemas.TopicDead(p)
		for _, class := range schemas.Classes {
			dead[schemas.TopicSend(p, class)] = schemas.TopicDead(p)
			for _, tier := range schemas.Tiers {
				dead[schemas.TopicRetry(p, class, tier)] = schemas.TopicDead(p)
			}
		}
	}
	return dead
}

// A record that cannot be read, on whichever topic, ends in the dead letters once, and its partition moves on.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 300})
	w.start() // makes the topics
	w.register("demo")
	w.serve.stop()
	garbage := []byte("\xff\xfe{ this is no record")
	w.onKafka(func(k *stream.Kafka) {
		var records []*kgo.Record
		for topic := range consumed() {
			// To every partition, so that every one must move on.
			records = append(records, everywhere(topic, "demo/garbage", garbage)...)
		}
		for _, view := range []string{schemas.TopicCampaigns, schemas.TopicAccounts, schemas.TopicLanes, schemas.TopicControl} {
			records = append(records, everywhere(view, "demo/garbage", garbage)...)
		}
		produceTo(t, k, records...)
	})

	w.start()
	w.campaign("demo", everyone("c1"))
	w.balanced(w.ended("demo", "c1"))
	want := map[string]int{}
	for _, topic := range schemas.Plan() {
		if consumed()[topic.Name] != "" {
			want[topic.Name] = int(topic.Partitions)
		}
	}
	until(t, "every record has its dead letter", func() bool {
		w.serve.stop()
		got := w.unreadable(garbage)
		w.start()
		return maps.Equal(got, want) || len(got) == len(want) && total(got) >= total(want)
	})
	w.serve.stop()
	// What was read in the last runs would have written them a second time.
	if got := w.unreadable(garbage); !maps.Equal(got, want) {
		t.Errorf("dead letters by topic: %v, want %v", got, want)
	}
}

func total(m map[string]int) (n int) {
	for _, one := range m {
		n += one
	}
	return n
}

// unreadable counts the dead letters by the topic of their record, and asserts what they hold.
func (w *world) unreadable(raw []byte) map[string]int {
	w.t.Helper()
	got := map[string]int{}
	dead := map[string]bool{}
	for _, topic := range consumed() {
		dead[topic] = true
	}
	w.onKafka(func(k *stream.Kafka) {
		for topic := range dead {
			for source, all := range letters(w.t, k, topic) {
				got[source] += len(all)
				for _, l := range all {
					if string(l.Raw) != string(raw) || l.Reason == "" || consumed()[source] != topic {
						w.t.Errorf("dead letter of %s on %s: reason %q, raw %q", source, topic, l.Reason, l.Raw)
					}
				}
			}
		}
	})
	return got
}

// everywhere is one record for each partition of a topic of the plan.
func everywhere(topic, key string, value []byte) (records []*kgo.Record) {
	for _, planned := range schemas.Plan() {
		if planned.Name != topic {
			continue
		}
		for partition := range planned.Partitions {
			records = append(records, &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: value})
		}
	}
	return records
}

const orderRule = `    rules:
      - name: order-shipped
        event: order.shipped
        when: fields.total > 50
        message: {title: "Order {{ event.order }} is on its way", body: "{{ attributes.first_name | 'Hello' }}!", ttl: 6h}
`

// devicesOf counts a user's devices.
func (w *world) devicesOf(user string) (n int64) {
	w.t.Helper()
	for line := range strings.Lines(w.read("sim/demo/devices.ndjson")) {
		var d struct{ User string }
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			w.t.Fatal(err)
		}
		if d.User == user {
			n++
		}
	}
	if n == 0 {
		w.t.Fatalf("user %s has no device", user)
	}
	return n
}

// Events make messages, once for each id, whichever way they come in; one that cannot be read is put aside with its reason.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 100, edit: func(yaml string) string {
		return strings.Replace(yaml, "  demo:\n", "  demo:\n"+orderRule, 1)
	}})
	w.start()
	w.register("demo")
	const user = "u-000001"
	devices := w.devicesOf(user)
	event := func(id string, total int) string {
		return fmt.Sprintf(`{"id": %q, "name": "order.shipped", "user": %q, "fields": {"order": %q, "total": %d}}`, id, user, id, total)
	}

	file := w.write("events.ndjson", strings.Join([]string{
		event("o-1", 99), event("o-1", 99), event("o-cheap", 1), `{"id": "o-bad", "name": "order.shipped"}`, event("o-2", 51),
	}, "\n"))
	pushed := command(t, w.env, "events", "push", file)
	if pushed.code == 0 || !strings.Contains(pushed.out, "4 accepted, 1 refused") || !strings.Contains(pushed.log, "line 4 refused: user: ") {
		t.Errorf("events push: exit status %d, %q, %q", pushed.code, pushed.out, pushed.log)
	}
	until(t, "two events are messages", func() bool { return w.receipts().Distinct >= 2*devices })

	w.serve.stop()
	w.onKafka(func(k *stream.Kafka) {
		asProto, err := proto.Marshal(&pb.Event{
			App: "demo", Id: "o-4", Name: "order.shipped", User: user,
			Fields: map[string]*pb.Value{"total": {Kind: &pb.Value_Number{Number: 60}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var records []*kgo.Record
		for _, value := range []string{
			withApp(event("o-3", 77)), `{"app": "demo", "id": "o-5"`, withApp(event("o-3", 77)), string(asProto),
			strings.Replace(withApp(event("o-6", 99)), "demo", "nobody", 1),
		} {
			records = append(records, &kgo.Record{Topic: schemas.TopicEvents, Key: schemas.Key("demo", user), Value: []byte(value)})
		}
		produce(t, k, records...)
	})
	w.start()
	until(t, "four events are messages", func() bool { return w.receipts().Distinct >= 4*devices })
	w.serve.stop()
	w.onKafka(func(k *stream.Kafka) {
		var reasons []string
		for _, l := range letters(t, k, schemas.TopicDeadOf(schemas.TopicEvents))[schemas.TopicEvents] {
			reasons = append(reasons, l.Reason)
		}
		// The event of an app that this process does not know waits for one that does.
		if got := strings.Join(reasons, ","); got != "undecodable" {
			t.Errorf("dead events for the reasons %q", got)
		}
	})
	if sum := w.receipts(); sum.Distinct != 4*devices || sum.Repeats != 0 {
		t.Errorf("%d pushes and %d repeats for 4 events to %d devices", sum.Distinct, sum.Repeats, devices)
	}
}

func withApp(event string) string { return strings.Replace(event, "{", `{"app": "demo", `, 1) }

// A call that a client repeats with its Idempotency-Key makes one push.
func TestTransactional(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{devices: 100})
	w.start()
	w.register("demo")
	const user = "u-000002"
	devices := w.devicesOf(user)
	body := `{"to": {"user": "` + user + `"}, "message": {"title": "Your code", "body": "{{ data.code }}", "ttl": "5m"}, "data": {"code": "271828"}}`
	post := func(key string) answer {
		return w.call("demo", http.MethodPost, "/v1/messages", body, "Idempotency-Key", key)
	}
	first, again := post("login-1"), post("login-1")
	if first.status != http.StatusAccepted || string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("answers: %d %s, then %d %s %v", first.status, first.body, again.status, again.body, again.header)
	}
	// Another one, so that what the second call had made would be seen by then: all go the same way, in order.
	if other := post("login-2"); other.status != http.StatusAccepted {
		t.Errorf("another key: %d %s", other.status, other.body)
	}
	until(t, "both messages are sent", func() bool { return w.receipts().Distinct >= 2*devices })
	w.serve.stop()
	if sum := w.receipts(); sum.Distinct != 2*devices || sum.Repeats != 0 {
		t.Errorf("%d pushes and %d repeats for 2 messages to %d devices", sum.Distinct, sum.Repeats, devices)
	}
}
