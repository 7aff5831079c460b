package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// A new process has its partitions before it has read the accounts. It must not begin them anew.
func TestCountingWaitsForTheAccountsThatAreWritten(t *testing.T) {
	k := streamtest.Kafka(t)
	const p = pb.Platform_PLATFORM_APNS
	key := accountKey(app, "run", p)
	streamtest.Produce(
		t, k,
		&kgo.Record{Topic: schemas.TopicAccounts, Key: key, Value: encode(&pb.Account{App: app, Run: "run", Platform: p, Planned: 7, Accepted: 4})},
		&kgo.Record{Topic: schemas.TopicResults(p), Key: schemas.Key(app, "run"), Value: schemas.AppendResult(nil, &pb.Result{Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: 1})},
	)
	restraints := control.NewView(k)
	streamtest.Run(t, restraints.Run)
	b := newBooks(p, newWritten(k), newGuard(p, Options{Kafka: k}, restraints))
	handling := make(chan struct{})
	var once sync.Once
	consumer := stream.NewConsumer(k, stream.Options{
		Name: "ledger.apns", Topics: []string{schemas.TopicResults(p)},
		Handle: func(ctx context.Context, tasks []*stream.Task) {
			once.Do(func() { close(handling) })
			b.handle(ctx, tasks)
		},
	})
	streamtest.Run(t, consumer.Run)
	<-handling
	// What else it waits for is there: only the accounts are not.
	if err := restraints.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, b.written.view.Run)
	awaitAccounts(t, k, map[string]*pb.Account{
		string(key): {App: app, Run: "run", Platform: p, Planned: 7, Accepted: 5, FirstAt: 1, LastAt: 1},
	})
}

func TestPageKeepsOnlyWhatIsNotWritten(t *testing.T) {
	w := &written{accounts: map[string][]byte{}}
	page := newPage(1)
	for i := range 2 * minTrim {
		a := account(fmt.Sprint("run", i), pb.Platform_PLATFORM_FCM, uint64(i))
		key := string(accountKey(app, a.Run, a.Platform))
		page.accounts[key] = a
		if i%2 == 0 {
			w.accounts[key] = encode(a)
		}
	}
	before := len(page.accounts)
	page.trim(w)
	if len(page.accounts) != before/2 || page.trimAt != before {
		t.Errorf("%d accounts of %d are kept, the next look is at %d", len(page.accounts), before, page.trimAt)
	}
}
