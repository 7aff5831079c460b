package replay_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/ledger"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/replay"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// account waits until the run's is as wanted. At every moment before, too, it must balance.
func (w *world) account(ok func(*pb.Account) bool) {
	w.t.Helper()
	streamtest.Read(w.t, w.k, func(r *kgo.Record) bool {
		a := &pb.Account{}
		if err := proto.Unmarshal(r.Value, a); err != nil {
			w.t.Fatal(err)
		}
		if a.Run != "c" {
			return true
		}
		if ends := a.Accepted + a.Unregistered + a.Rejected + a.Expired + a.Cancelled + a.Dead; ends > a.Planned {
			w.t.Fatalf("more ends than deliveries: %v", a)
		}
		return !ok(a)
	}, schemas.TopicAccounts)
}

// I10 over a replay, with the ledger itself.
func TestBooksBalanceBeforeWhileAndAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rdb := registrytest.Redis(t)
	streamtest.Run(t, ledger.New(ledger.Options{Kafka: w.k, Redis: rdb.UniversalClient, Prefix: rdb.Prefix}).Run)
	streamtest.Run(t, replay.New(w.k).Run)
	say := func(expanded *pb.Expanded, results ...*pb.Result) {
		var batch []byte
		if expanded != nil {
			batch = schemas.AppendExpanded(batch, expanded)
		}
		for _, r := range results {
			batch = schemas.AppendResult(batch, r)
		}
		streamtest.Produce(t, w.k, &kgo.Record{Topic: schemas.TopicResults(fcm), Key: []byte("shop/c"), Value: batch})
	}
	accepted, dead := &pb.Result{Outcome: pb.Outcome_OUTCOME_ACCEPTED}, &pb.Result{Outcome: pb.Outcome_OUTCOME_DEAD, Code: "503"}
	say(&pb.Expanded{Total: 1, Planned: 5}, accepted, accepted, dead, dead, dead)
	w.account(func(a *pb.Account) bool { return a.Planned == 5 && a.Accepted == 2 && a.Dead == 3 })

	w.bury(fcm, letter(delivery("c", "a")), letter(delivery("c", "b")), letter(delivery("c", "late", expired)))
	w.ask(&pb.Replay{Id: "r"})
	w.account(func(a *pb.Account) bool {
		return a.Planned == 5 && a.Accepted == 2 && a.Dead == 1 && a.Replayed == 2 // two are pending again
	})
	say(nil, accepted, dead) // as the lane says of the two
	w.account(func(a *pb.Account) bool { return a.Planned == 5 && a.Accepted == 3 && a.Dead == 2 && a.Replayed == 2 })
}
