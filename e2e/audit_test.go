package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/audit"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// The audit finds nothing wrong with a run that is right, by the ledger, the topics and the receipts; and finds one result
// too many.
func TestAudit(t *testing.T) {
	t.Parallel()
	const devices = 1000
	w := newWorld(t, options{devices: devices, gone: 0.05})
	w.start()
	w.register("demo")
	w.campaign("demo", everyone("c1"))
	p := w.ended("demo", "c1")
	w.serve.stop() // the embedded Kafka has one owner at a time

	out := w.belfry("campaign", "audit", "c1", "--simulator", w.control, "--json")
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	var planned, accepted uint64
	var received int
	for _, one := range r.Platforms {
		planned += one.Topics.Planned
		accepted += one.Topics.Accepted
		received += one.Received.Deliveries
	}
	if !r.Settled || planned != devices || accepted != p.Accepted || received != int(accepted) || len(r.Differences) != 0 {
		t.Errorf("the audit says:\n%s", out)
	}
	if text := w.belfry("campaign", "audit", "c1"); !strings.HasSuffix(text, "The books balance.\n") {
		t.Errorf("the audit says:\n%s", text)
	}

	w.onKafka(func(k *stream.Kafka) {
		id := schemas.DeliveryID("demo", "c1", "d-000000", 0)
		produce(t, k, &kgo.Record{
			Topic: schemas.TopicResults(pb.Platform_PLATFORM_APNS), Key: schemas.Key("demo", "c1"),
			Value: schemas.AppendResult(nil, &pb.Result{Delivery: id[:], Outcome: pb.Outcome_OUTCOME_ACCEPTED}),
		})
	})
	f := command(t, w.env, "campaign", "audit", "c1")
	if f.code != 1 || !strings.Contains(f.out, "THE BOOKS DO NOT BALANCE") || !strings.Contains(f.out, "apns: 1 more outcomes than were planned") {
		t.Errorf("after one result too many the audit ends with %d and says:\n%s%s", f.code, f.out, f.log)
	}
}
