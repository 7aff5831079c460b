package senders

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream/streamtest"
)

// BenchmarkLane is a lane's own cost for one delivery, from its record to its outcome committed, with a provider that
// answers at once and the embedded broker in the same process.
func BenchmarkLane(b *testing.B) {
	k := streamtest.Kafka(b)
	campaign(b, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	client := streamtest.Client(b, k, kgo.MaxBufferedRecords(100_000))
	for i := range b.N {
		r := onTopic(k.Topic(sendBulk), delivery("spring", fmt.Sprint("d", i), "w"))
		client.Produce(b.Context(), r, nil)
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	p := &instantProvider{fakeProvider{platform: fcm, ceiling: 500}}
	runs := NewRuns(k, fcm)
	streamtest.Run(b, runs.Run)
	b.ReportAllocs()
	b.ResetTimer()
	streamtest.Run(b, NewLane(Options{Kafka: k, Provider: p, Class: bulk, Runs: runs, Control: watched(b, k), Rates: NewRates()}).Run)
	n := 0
	streamtest.Read(b, k, func(r *kgo.Record) bool {
		batch := &pb.ResultBatch{}
		if err := proto.Unmarshal(r.Value, batch); err != nil {
			b.Fatal(err)
		}
		n += len(batch.Results)
		return n < b.N
	}, results)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// instantProvider keeps nothing.
type instantProvider struct{ fakeProvider }

func (*instantProvider) Send(batch []*Request) {
	for _, r := range batch {
		r.Handler.Answered([]wire.Result{{Request: &r.Request, Status: 200}})
	}
}
