package stream_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream/streamtest"
)

// TestForgottenTransactionEnds: a broker was killed between the decision of a transaction and its markers, and forgot them
// when it started. It ends as was decided; one that its coordinator still has in hand is left alone.
func TestForgottenTransactionEnds(t *testing.T) {
	k, _ := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 3})
	adm := kadm.NewClient(streamtest.Client(t, k))
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "__transaction_state"); err != nil {
		t.Fatal(err)
	}
	var log []*kgo.Record
	note := func(name string, id int64, epoch int16, state kmsg.TransactionState) {
		key, value := kmsg.NewTxnMetadataKey(), kmsg.NewTxnMetadataValue()
		key.TransactionalID = name
		value.ProducerID, value.ProducerEpoch, value.State = id, epoch, state
		log = append(log, &kgo.Record{Topic: "__transaction_state", Key: key.AppendTo(nil), Value: value.AppendTo(nil)})
	}
	for partition, name := range []string{"committed", "aborted", "in hand"} {
		client := streamtest.Client(t, k, kgo.TransactionalID(name), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.TransactionTimeout(time.Minute))
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: k.Topic("in"), Partition: int32(partition), Key: []byte(name)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		id, epoch, err := client.ProducerID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		note(name, id, epoch, kmsg.TransactionStateOngoing)
		switch name {
		case "committed":
			note(name, id, epoch+1, kmsg.TransactionStatePrepareCommit)
			note(name, id, epoch+1, kmsg.TransactionStateCompleteCommit)
			note(name, id, epoch+1, kmsg.TransactionStateOngoing) // its producer writes elsewhere
		case "aborted":
			note(name, id, epoch+1, kmsg.TransactionStatePrepareAbort)
			note(name, id, epoch+1, kmsg.TransactionStateCompleteAbort)
		case "in hand":
			note(name, id, epoch+1, kmsg.TransactionStatePrepareCommit)
		}
	}
	if err := streamtest.Client(t, k).ProduceSync(t.Context(), log...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var said lines
	watched := *k
	watched.Log = slog.New(slog.NewTextHandler(&said, nil))
	streamtest.Run(t, watched.Watch)
	waitFor(t, func() bool { return said.count("decided transactions") == 1 })
	stable := func(partition int32) int64 {
		at, err := adm.ListCommittedOffsets(t.Context(), k.Topic("in"))
		if err != nil {
			t.Fatal(err)
		}
		o, _ := at.Lookup(k.Topic("in"), partition)
		return o.Offset
	}
	if a, b := stable(0), stable(1); a != 2 || b != 2 { // the record and its marker
		t.Errorf("decided up to %d and %d", a, b)
	}
	if at := stable(2); at != 0 {
		t.Errorf("a transaction that its coordinator has in hand was ended: decided up to %d", at)
	}
	streamtest.Produce(t, k, &kgo.Record{Topic: "in", Partition: 0, Key: []byte("last")})
	var keys []string
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		keys = append(keys, string(r.Key))
		return len(keys) < 2
	}, "in")
	if keys[0] == "aborted" || keys[1] == "aborted" {
		t.Errorf("readers are given %v", keys)
	}
}
