package e2e

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// missing tells, of a campaign that did not end in time, where its deliveries are: what serve is doing, which ends it; which
// deliveries on Kafka have no end, and whether a provider took them; and how far those have read who end and count them.
func (w *world) missing(app, id string) {
	w.t.Helper()
	if w.serve != nil && w.serve.running() {
		w.serve.dump()
	}
	w.receipts() // writes the file out
	taken := w.read("receipts.ndjson")
	w.onKafkaAsItLies(func(k *stream.Kafka) {
		for _, p := range schemas.Platforms {
			ends := w.ends(k, p, app, id)
			planned, lost := 0, 0
			committed(w.t, k, schemas.TopicSend(p, pb.Class_CLASS_BULK), func(r *kgo.Record) {
				d := &pb.Delivery{}
				if proto.Unmarshal(r.Value, d) != nil || d.App != app || d.Run != id || d.Attempt > 0 || d.LastCode != "" {
					return // it came back from a retry topic
				}
				if planned++; ends[string(d.Id)] {
					return
				}
				if lost++; lost <= 20 {
					name := simulator.ID(d.Id).String()
					w.t.Logf("no end: %s/%d at %d, %s, accepted: %t", r.Topic, r.Partition, r.Offset, name, strings.Contains(taken, name))
				}
			})
			name := schemas.PlatformName(p)
			w.t.Logf("%s: %d deliveries of %s on Kafka, %d without an end, %d ends", name, planned, id, lost, len(ends))
			w.behind(k, "senders."+name+".bulk", schemas.TopicSend(p, pb.Class_CLASS_BULK))
			w.behind(k, "ledger."+name, schemas.TopicResults(p))
		}
	})
}

// ends are the deliveries of a campaign that Kafka holds a result of which is an end.
func (w *world) ends(k *stream.Kafka, p pb.Platform, app, id string) map[string]bool {
	ends := map[string]bool{}
	committed(w.t, k, schemas.TopicResults(p), func(r *kgo.Record) {
		var batch pb.ResultBatch
		if string(r.Key) != app+"/"+id || proto.Unmarshal(r.Value, &batch) != nil {
			return
		}
		for _, one := range batch.Results {
			if one.Outcome != pb.Outcome_OUTCOME_DEFERRED {
				ends[string(one.Delivery)] = true
			}
		}
	})
	return ends
}

// behind shows where a group stands on each partition that holds more than the marker of the last commit.
func (w *world) behind(k *stream.Kafka, group, topic string) {
	client, err := k.Client()
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	adm := kadm.NewClient(client)
	ends, err := adm.ListEndOffsets(ctx, k.Topic(topic))
	if err != nil {
		w.t.Fatal(err)
	}
	at, err := adm.FetchOffsets(ctx, k.Prefix+group)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, o := range at.Sorted() {
		end, _ := ends.Lookup(o.Topic, o.Partition)
		if o.Topic == k.Topic(topic) && o.At < end.Offset-1 {
			all = append(all, fmt.Sprintf("%d: %d of %d", o.Partition, o.At, end.Offset))
		}
	}
	w.t.Logf("%s on %s: %s", group, topic, strings.Join(all, "; "))
}
