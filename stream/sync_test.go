package stream_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
)

// BenchmarkEmbeddedSync is a transaction of 1,200 records on 12 partitions: what data.sync costs (docs/operations.md).
func BenchmarkEmbeddedSync(b *testing.B) {
	for _, always := range []bool{false, true} {
		b.Run(fmt.Sprintf("always=%v", always), func(b *testing.B) {
			e, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: b.TempDir(), SyncAlways: always})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			client, err := kgo.NewClient(kgo.SeedBrokers(e.Addrs()...), kgo.TransactionalID("bench"), kgo.DefaultProduceTopic("in"),
				kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			if _, err := kadm.NewClient(client).CreateTopic(b.Context(), 12, 1, nil, "in"); err != nil {
				b.Fatal(err)
			}
			records := make([]*kgo.Record, 1200)
			for b.Loop() {
				for i := range records {
					records[i] = &kgo.Record{Value: make([]byte, 400)}
				}
				if err := client.BeginTransaction(); err != nil {
					b.Fatal(err)
				}
				if err := client.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
					b.Fatal(err)
				}
				if err := client.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(records)*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
