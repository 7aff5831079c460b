package senders

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream/streamtest"
)

// What a campaign has at a sick destination keeps others from being expanded for it. When the campaign is cancelled that is over
// at once, wherever its deliveries are, and not when they would have fallen due.
func TestCancelledWorkFreesWhatItHeld(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until a destination's deliveries are parked")
	}
	for where, when := range map[string]func(*pb.DestinationStatus) bool{
		"in the lane":     func(d *pb.DestinationStatus) bool { return d.Queued > 1000 },
		"on retry topics": func(d *pb.DestinationStatus) bool { return d.Queued < 100 && d.Parked > 1000 },
	} {
		t.Run(where, func(t *testing.T) { testCancelledWork(t, when) })
	}
}

func testCancelledWork(t *testing.T, when func(*pb.DestinationStatus) bool) {
	t.Parallel()
	k := streamtest.Kafka(t)
	campaign(t, k, "bad", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	var records []*kgo.Record
	for i := range 2000 {
		records = append(records, onTopic(sendBulk, delivery("bad", fmt.Sprint("d", i), "s")))
	}
	streamtest.Produce(t, k, records...)
	p := &fakeProvider{platform: fcm, ceiling: 16, answer: func(context.Context, *Request) (*wire.Result, error) { return status(503) }}
	streamtest.Run(t, NewPlatform(k, p, schemas.Classes).Run)
	var cancelled time.Time
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		s := &pb.LaneStatus{}
		if err := proto.Unmarshal(r.Value, s); err != nil {
			t.Fatal(err)
		}
		if s.Class != bulk || len(s.Destinations) == 0 {
			return true
		}
		d := s.Destinations[0]
		if cancelled.IsZero() && d.Shut && when(d) {
			campaign(t, k, "bad", pb.CampaignState_CAMPAIGN_STATE_CANCELLED)
			cancelled = time.Now()
		}
		return cancelled.IsZero() || d.Shut || d.Parked > 0
	}, schemas.TopicLanes)
	if took := time.Since(cancelled); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}
