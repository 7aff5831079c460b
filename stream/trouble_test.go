package stream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// TestExplainSaysTheWayOut, keeps what it explains, and adds nothing to what it does not know.
func TestExplainSaysTheWayOut(t *testing.T) {
	if stream.Explain(nil) != nil {
		t.Error("nothing is explained")
	}
	other := errors.New("another")
	if got := stream.Explain(other); got != other {
		t.Errorf("what is not known became %v", got)
	}
	for code, says := range map[error]string{
		kerr.InvalidTimestamp: "clock", kerr.MessageTooLarge: "max.message.bytes", kerr.NotEnoughReplicas: "in sync",
		kerr.TopicAuthorizationFailed: "allow", kerr.UnknownTopicOrPartition: "topics apply",
	} {
		if got := stream.Explain(code); !errors.Is(got, code) || !strings.Contains(got.Error(), says) {
			t.Errorf("%v is explained as %v", code, got)
		}
	}
}

// TestClockThatIsAheadIsNamed: what a broker answers to it, which takes the whole batch with it.
func TestClockThatIsAheadIsNamed(t *testing.T) {
	if !streamtest.OnReal() {
		t.Skip("the embedded broker takes any time")
	}
	k := streamtest.Kafka(t, streamtest.Topic{Name: "in", Partitions: 1})
	client := streamtest.Client(t, k)
	now := &kgo.Record{Topic: k.Topic("in"), Value: []byte("now")}
	ahead := &kgo.Record{Topic: k.Topic("in"), Value: []byte("ahead"), Timestamp: time.Now().Add(2 * time.Hour)}
	err := client.ProduceSync(t.Context(), now, ahead).FirstErr()
	if !errors.Is(err, kerr.InvalidTimestamp) || !strings.Contains(stream.Explain(err).Error(), "clock") {
		t.Errorf("it is said as %v", stream.Explain(err))
	}
}
