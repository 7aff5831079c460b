package stream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
	"github.com/belfry/belfry/stream/streamtest/refusal"
)

// TestARealBrokerRefuses what is written to one topic, by its own settings: nothing is done twice by a process that stays, little is
// left behind, nobody who restarts in order in the middle is any worse off, and all flows within 10 s of the mending.
func TestARealBrokerRefuses(t *testing.T) {
	if !streamtest.OnReal() {
		t.Skip("the embedded broker looks at none of these settings")
	}
	for name, change := range map[string][2]refusal.Change{
		"max.message.bytes": {refusal.Setting("max.message.bytes", "100"), refusal.Setting("max.message.bytes", "")},
		"authorization":     {refusal.Deny, refusal.Allow},
	} {
		for _, restarts := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 2}, streamtest.Topic{Name: "out", Partitions: 2})
				adm := kadm.NewClient(streamtest.Client(t, k))
				if err := change[0](t.Context(), adm, k.Topic("out")); errors.Is(err, kerr.SecurityDisabled) {
					t.Skip("the broker has no authorizer: scripts/kafka/kafka-start --acls gives it one")
				} else if err != nil {
					t.Fatal(err)
				}
				fill(t, k, "in", records)
				var did handled
				handle := func(_ context.Context, tasks []*stream.Task) {
					for _, task := range tasks {
						did.note(task)
						out := copyOf(task)
						out.Value = append(make([]byte, 200), out.Value...)
						task.Done(out)
					}
				}
				stop := start(t, k, "a", handle)
				time.Sleep(10 * time.Second)
				if k.Health() == nil {
					t.Error("commits fail, and all is well")
				}
				most := 1
				if restarts {
					most = 2 // what the process before has done and could not commit
					stop()
					start(t, k, "a", handle)
				}
				time.Sleep(10 * time.Second)
				ends, err := adm.ListEndOffsets(t.Context(), k.Topic("out"))
				if err != nil {
					t.Fatal(err)
				}
				var left int64
				ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
				// At most one attempt of a process, of a full window of 256 a partition, and probes.
				if left > int64(most)*(2*256+100) {
					t.Errorf("%d aborted records and markers are left behind", left)
				}
				if err := change[1](t.Context(), adm, k.Topic("out")); err != nil {
					t.Fatal(err)
				}
				mended := time.Now()
				readOnce(t, k, "out", records)
				if took := time.Since(mended); took > 10*time.Second {
					t.Errorf("it took %v to flow", took)
				}
				waitFor(t, func() bool { return k.Health() == nil })
				did.atMost(t, most)
			})
		}
	}
}
