package stream

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/belfry/belfry/stream/datadir"
)

// noteEndings notes what each commit holds before kfake makes it, so that one which a kill cuts in two can be made whole. kfake
// calls these and then serves the request, one after the other.
func (e *Embedded) noteEndings() {
	staged := map[int64]*datadir.Ending{} // by producer
	e.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		req := r.(*kmsg.TxnOffsetCommitRequest)
		at := staged[req.ProducerID]
		if at == nil || at.Epoch != req.ProducerEpoch {
			at = &datadir.Ending{Producer: req.ProducerID, Epoch: req.ProducerEpoch}
			staged[req.ProducerID] = at
		}
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				at.Positions = append(at.Positions, datadir.Position{
					Group: req.Group, Topic: t.Topic, Partition: p.Partition, Offset: p.Offset, Epoch: p.LeaderEpoch, Metadata: p.Metadata,
				})
			}
		}
		return nil, nil, false
	})
	e.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		req := r.(*kmsg.EndTxnRequest)
		ending := datadir.Ending{Producer: req.ProducerID, Epoch: req.ProducerEpoch}
		if at := staged[req.ProducerID]; at != nil && at.Epoch == req.ProducerEpoch {
			ending = *at
		}
		delete(staged, req.ProducerID)
		if !req.Commit {
			return nil, nil, false
		}
		if err := e.endings.Note(ending); err != nil {
			e.o.Log.Error("the embedded Kafka could not write: look at the disk", "err", err)
			return Refuse(req, kerr.KafkaStorageError), nil, true
		}
		return nil, nil, false
	})
}

// named has clients name topics by their names where they set positions in a transaction: noteEndings reads them.
func named() kfake.Opt {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 5)
	return kfake.MaxVersions(v)
}
