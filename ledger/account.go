package ledger

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// maxCodes bounds an account's codes: a provider's texts end up there, and an account is written with every commit.
const (
	maxCodes  = 64
	otherCode = "other"
)

// add enters a batch into an account. The order in which batches come does not matter, except for which codes are the
// first 64. (A dead letter is replayed only after its end was written, to the same partition: dead does not go below 0.)
func add(a *pb.Account, batch *pb.ResultBatch) {
	for _, e := range batch.GetExpanded() {
		a.Planned += uint64(e.GetPlanned())
		if !e.GetPartial() {
			a.ChunksExpanded++
		}
		a.ChunksTotal = max(a.GetChunksTotal(), e.GetTotal())
	}
	for _, r := range batch.GetReplayed() {
		a.Dead -= uint64(r.GetDead())
		a.Planned += uint64(r.GetPlanned())
		a.Replayed += uint64(r.GetDead()) + uint64(r.GetPlanned())
	}
	for _, r := range batch.GetResults() {
		if r.GetPlanned() {
			a.Planned++
		}
		*count(a, r.GetOutcome())++
		addCode(a, r)
		if a.GetFirstAt() == 0 || r.GetAt() < a.GetFirstAt() {
			a.FirstAt = r.GetAt()
		}
		a.LastAt = max(a.GetLastAt(), r.GetAt())
	}
}

// count is the account's field for an outcome, or nil for one that this release does not know.
func count(a *pb.Account, o pb.Outcome) *uint64 {
	switch o {
	case pb.Outcome_OUTCOME_ACCEPTED:
		return &a.Accepted
	case pb.Outcome_OUTCOME_UNREGISTERED:
		return &a.Unregistered
	case pb.Outcome_OUTCOME_REJECTED:
		return &a.Rejected
	case pb.Outcome_OUTCOME_EXPIRED:
		return &a.Expired
	case pb.Outcome_OUTCOME_CANCELLED:
		return &a.Cancelled
	case pb.Outcome_OUTCOME_DEAD:
		return &a.Dead
	case pb.Outcome_OUTCOME_DEFERRED:
		return &a.Deferred
	}
	return nil
}

func addCode(a *pb.Account, r *pb.Result) {
	code := r.GetCode()
	if code == "" || r.GetOutcome() == pb.Outcome_OUTCOME_ACCEPTED {
		return
	}
	if _, known := a.Codes[code]; !known && len(a.Codes) >= maxCodes {
		code = otherCode
	}
	if a.Codes == nil {
		a.Codes = map[string]uint64{}
	}
	a.Codes[code]++
}

// ends is how many deliveries have come to their end.
func ends(a *pb.Account) uint64 {
	return a.GetAccepted() + a.GetUnregistered() + a.GetRejected() + a.GetExpired() + a.GetCancelled() + a.GetDead()
}

// settled tells that a campaign's every chunk was expanded and every delivery has ended. The account of transactional
// messages has no chunks and never settles.
func settled(a *pb.Account) bool {
	return a.GetChunksTotal() > 0 && a.GetChunksExpanded() == a.GetChunksTotal() && ends(a) == a.GetPlanned()
}

// decodeBatch reads a results record. One with an outcome from a later release cannot be counted, and so not be read.
func decodeBatch(value []byte) (*pb.ResultBatch, error) {
	batch := &pb.ResultBatch{}
	if err := proto.Unmarshal(value, batch); err != nil {
		return nil, err
	}
	var scratch pb.Account
	for i, r := range batch.GetResults() {
		if count(&scratch, r.GetOutcome()) == nil {
			return nil, fmt.Errorf("result %d has outcome %d, which this release does not know; upgrade the ledger before the senders",
				i, r.GetOutcome())
		}
	}
	return batch, nil
}

// encode is deterministic, so that equal accounts are equal bytes.
func encode(a *pb.Account) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil {
		// Only invalid UTF-8 can fail, and what was decoded from a results record is valid.
		panic("ledger: encode account: " + err.Error())
	}
	return b
}
