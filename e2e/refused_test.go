package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest/refusal"
)

// illness is what a real cluster can have with one topic, or one client, and is well otherwise.
type illness struct {
	set, lift refusal.Change
	// unready is what readiness says meanwhile, "" where all goes on, slowly, and restarted what a new process says.
	unready, restarted string
}

var illnesses = map[string]illness{
	// A broker is down besides, and no other topic minds: see TestATroubledTopicStopsNothingForGood.
	"too few in-sync replicas": {refusal.Setting("min.insync.replicas", "3"), refusal.Setting("min.insync.replicas", "2"), "NOT_ENOUGH_REPLICAS", "in-sync replicas"},
	// A transaction's marker fits, and no record.
	"records too large": {refusal.Setting("max.message.bytes", "100"), refusal.Setting("max.message.bytes", "1048588"), "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE"},
	"not authorized":    {refusal.Deny, refusal.Allow, "TOPIC_AUTHORIZATION_FAILED", "TOPIC_AUTHORIZATION_FAILED"},
	"throttled":         {throttle(2048), throttle(0), "", ""},
}

// A topic refuses what fan-out and a lane commit, or Kafka takes it by the drop: while a campaign is sent, over a stop in good
// order and over a SIGKILL. When that ends, all goes on by itself: that campaign, and the next.
func TestATroubledTopicStopsNothingForGood(t *testing.T) {
	needReal(t, "it starts three brokers of its own beside them")
	needTools(t, "java", "mvn")
	// Not parallel: beside three more JVMs others' bulk lanes, which give way to all, have hardly a core.
	dir := t.TempDir()
	brokers := script(t, "kafka/kafka-start", "--dir", dir, "--nodes", "3", "--port", "auto", "--heap", "400m", "--acls")
	t.Cleanup(func() { script(t, "kafka/kafka-stop", "--dir", dir, "--grace", "5") })
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for name, of := range illnesses {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{devices: 600})
			w.env = append(w.env, "BELFRY_KAFKA_BROKERS="+brokers)
			w.start()
			w.register("demo")
			if of.unready != "" {
				t.Parallel()
			}
			w.troubled(of, kadm.NewClient(client))
		})
	}
	// All their topics are there by now, with three replicas, and the parallel ones go on when this returns: with two in sync, only
	// who wants all three is ill.
	script(t, "kafka/kafka-node", "--dir", dir, "stop", "3")
}

// troubled has a campaign meet the illness, with each thing that an operator or a machine may do meanwhile.
func (w *world) troubled(of illness, adm *kadm.Client) {
	w.t.Helper()
	var done []producer.Progress
	topic := w.prefix + schemas.TopicResults(pb.Platform_PLATFORM_APNS)
	for i, meanwhile := range []func(){nil, w.stops, w.killed} {
		if err := of.set(w.t.Context(), adm, topic); err != nil {
			w.t.Fatal(err)
		}
		id := fmt.Sprint("c", i)
		w.campaign("demo", everyone(id))
		w.unready(of.unready)
		if meanwhile != nil {
			meanwhile()
			w.unready(of.restarted)
		}
		if p, ok := w.progress("demo", id); ok && p.State == "finished" {
			w.t.Errorf("the illness did not strike: %+v", p)
		}
		if err := of.lift(w.t.Context(), adm, topic); err != nil {
			w.t.Fatal(err)
		}
		w.ready(w.serve)
		done = append(done, w.ended("demo", id))
		w.balanced(done...)
	}
}

func (w *world) stops() {
	w.serve.stop()
	w.serve = launch(w.t, "serve", w.env, "serve")
}

func (w *world) killed() {
	w.serve.kill()
	w.serve = launch(w.t, "serve", w.env, "serve")
}

// unready waits until the process says that it is not ready, and why; with "", until it is.
func (w *world) unready(why string) {
	w.t.Helper()
	if why == "" {
		w.ready(w.serve)
		return
	}
	said := ""
	defer func() {
		if w.t.Failed() {
			w.t.Logf("it said of its readiness: %s", said)
		}
	}()
	until(w.t, "it is not ready for "+why, func() bool {
		a, err := w.try("demo", http.MethodGet, "/readyz", "")
		said = fmt.Sprintf("%d %s %v", a.status, a.body, err)
		return a.status == http.StatusServiceUnavailable && strings.Contains(said, why)
	})
}

// throttle bounds what each of Belfry's clients may produce, in bytes a second; 0 bounds it no more.
func throttle(rate float64) refusal.Change {
	return func(ctx context.Context, adm *kadm.Client, _ string) error {
		name := "belfry"
		answers, err := adm.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{
			Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &name}},
			Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: rate, Remove: rate == 0}},
		}})
		for _, a := range answers {
			err = errors.Join(err, a.Err)
		}
		return err
	}
}
