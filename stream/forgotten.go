package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Transactions that Kafka has decided and forgot to end.
//
// A broker's coordinator notes that a transaction commits, has a marker written to each of its partitions, and notes that it
// is complete. Killed in between, it takes that up again when it starts; but as long as it does not know itself as a broker
// yet, it knows no leader of any partition either, takes them all for deleted, and skips them ("Couldn't find leader
// endpoint for partitions ..., these partitions are likely deleted already and hence can be skipped", Kafka 4.3). Where
// there is another broker that does not happen. What was written then stays undecided until the same producer next writes to
// the same partition, if ever, and nobody is given what lies behind it. kafka-transactions.sh could only abort it, and it
// was committed. So this writes the marker that is missing, as the coordinator's log says.
const (
	// lookFor is how long after Kafka has come back such transactions are looked for. A coordinator starts within it.
	lookFor          = 30 * time.Second
	transactionState = "__transaction_state"
	consumerOffsets  = "__consumer_offsets"
)

// mender looks for them.
type mender struct {
	k     *Kafka
	until time.Time
	// seen are those that were open at the last look: one that is under way is not for long.
	seen    map[openTransaction]bool
	failed  bool   // the last look
	problem string // that was said last
}

// openTransaction is one on one partition.
type openTransaction struct {
	at tp // topic with its prefix
	producer
	first       int64 // offset
	coordinator int32 // epoch
}

func (m *mender) begin() { *m = mender{k: m.k, until: time.Now().Add(lookFor)} }

// look ends those that it finds for the second time, and says so.
func (m *mender) look(ctx context.Context, client *kgo.Client) {
	if time.Now().After(m.until) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	ended, err := m.mend(ctx, kadm.NewClient(client))
	if ended > 0 {
		m.k.Log.Warn("Kafka had decided transactions and not told their partitions; that is done now", "partitions", ended)
	}
	failed := err != nil && ctx.Err() == nil && !retriable(err) // a leader that is being chosen is asked again
	// The first failure may be an outage's beginning, of which Watch tells.
	if failed && m.failed && err.Error() != m.problem {
		m.problem = err.Error()
		m.k.Log.Error("transactions that a killed broker left open could not be looked for: where one is, readers stand still. "+
			"This needs ClusterAction, and Read on "+transactionState, "err", err)
	}
	m.failed = failed
}

func (m *mender) mend(ctx context.Context, adm *kadm.Client) (ended int, err error) {
	open, err := m.open(ctx, adm)
	if err != nil {
		return 0, err
	}
	var again []openTransaction
	now := map[openTransaction]bool{}
	for _, o := range open {
		if now[o] = true; m.seen[o] {
			again = append(again, o)
		}
	}
	if m.seen = now; len(again) == 0 {
		return 0, nil
	}
	decided, err := m.decisions(ctx, adm)
	if err != nil {
		return 0, err
	}
	for _, o := range again {
		commit, ok := decided[o.producer]
		if !ok {
			continue // a coordinator has it in hand
		}
		// With the epoch that its records have: by then the next one's may lie behind them, and a broker refuses this.
		marker := kadm.TxnMarkers{ProducerID: o.id, ProducerEpoch: o.epoch, Commit: commit, CoordinatorEpoch: max(0, o.coordinator)}
		marker.Topics.Add(o.at.topic, o.at.partition)
		written, e := adm.WriteTxnMarkers(ctx, marker)
		if e == nil {
			e = markerError(written)
		}
		if errors.Is(e, kerr.InvalidProducerEpoch) {
			continue // its end or the next one's records have come meanwhile
		}
		if e != nil {
			err = fmt.Errorf("end a transaction on %v: %w", o.at, e)
			continue
		}
		ended++
	}
	return ended, err
}

func markerError(written kadm.TxnMarkersResponses) error {
	var first firstError
	written.Each(func(r kadm.TxnMarkersResponse) {
		r.Topics.Each(func(t kadm.TxnMarkersTopicResponse) {
			t.Partitions.Each(func(p kadm.TxnMarkersPartitionResponse) { first.set(p.Err) })
		})
	})
	return first.get()
}

// open lists the transactions under way on our topics and on those of the groups' offsets.
func (m *mender) open(ctx context.Context, adm *kadm.Client) (all []openTransaction, err error) {
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for name := range topics {
		if strings.HasPrefix(name, m.k.Prefix) || name == consumerOffsets {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil // none would be all
	}
	ends, err := adm.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("where logs end: %w", err)
	}
	stable, err := adm.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("how far logs are decided: %w", err)
	}
	undecided := kadm.TopicsSet{}
	ends.Each(func(end kadm.ListedOffset) {
		if at, ok := stable.Lookup(end.Topic, end.Partition); ok && at.Offset < end.Offset {
			undecided.Add(end.Topic, end.Partition)
		}
	})
	if len(undecided) == 0 {
		return nil, nil
	}
	producers, err := adm.DescribeProducers(ctx, undecided)
	if err != nil {
		return nil, fmt.Errorf("whose transactions are open: %w", err)
	}
	producers.EachProducer(func(d kadm.DescribedProducer) {
		if d.CurrentTxnStartOffset >= 0 {
			all = append(all, openTransaction{
				tp{d.Topic, d.Partition}, producer{d.ProducerID, d.ProducerEpoch}, d.CurrentTxnStartOffset, d.CoordinatorEpoch,
			})
		}
	})
	return all, nil
}

// decisions reads the coordinators' log: by the producer of a transaction's records, whether it was committed, if its
// coordinator has done with it.
func (m *mender) decisions(ctx context.Context, adm *kadm.Client) (map[producer]bool, error) {
	ends, err := adm.ListEndOffsets(ctx, transactionState)
	if err == nil {
		err = ends.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, nil // the embedded broker has no such log
	}
	if err != nil {
		return nil, fmt.Errorf("what coordinators have decided: %w", err)
	}
	from, left := map[int32]kgo.Offset{}, map[tp]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			from[end.Partition], left[tp{end.Topic, end.Partition}] = kgo.NewOffset().AtStart(), end.Offset
		}
	})
	client, err := m.k.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{transactionState: from}), kgo.FetchMaxWait(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	type decision struct {
		of     producer
		commit bool
	}
	decided, prepared := map[producer]bool{}, map[string]decision{} // prepared by transactional id
	readTo(ctx, client, left, func(r *kgo.Record) {
		var key kmsg.TxnMetadataKey
		var value kmsg.TxnMetadataValue
		if key.ReadFrom(r.Key) != nil || r.Value == nil || value.ReadFrom(r.Value) != nil {
			return
		}
		switch value.State {
		case kmsg.TransactionStatePrepareCommit, kmsg.TransactionStatePrepareAbort:
			// The decision takes the producer to its next epoch (KIP-890); its records are of the one before.
			prepared[key.TransactionalID] = decision{
				producer{value.ProducerID, value.ProducerEpoch - 1}, value.State == kmsg.TransactionStatePrepareCommit,
			}
		default:
			if p, ok := prepared[key.TransactionalID]; ok {
				decided[p.of] = p.commit
				delete(prepared, key.TransactionalID)
			}
		}
	})
	return decided, ctx.Err()
}
