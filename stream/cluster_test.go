package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestAClusterIsKnownWhileATransactionIsOpen: a process that was killed as it wrote to control must not wait at its start for Kafka to
// end that, which it does by itself a little later.
func TestAClusterIsKnownWhileATransactionIsOpen(t *testing.T) {
	t.Parallel()
	k := streamtest.Kafka(t)
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	killed := streamtest.Client(t, k, kgo.TransactionalID(k.Prefix+"killed"), kgo.TransactionTimeout(10*time.Minute))
	if err := killed.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := killed.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic(schemas.TopicControl), Key: []byte("replay"), Value: []byte("begun")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := stream.CheckCluster(ctx, k); err != nil {
		t.Errorf("the cluster is not known: %v", err)
	}
	if err := killed.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Errorf("the transaction was over before: %v", err)
	}
}
