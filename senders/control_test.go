package senders

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func restrain(t *testing.T, k *stream.Kafka, n control.Name, r *pb.Restraint) {
	t.Helper()
	record := &kgo.Record{Topic: schemas.TopicControl, Key: []byte(n)}
	if r != nil {
		r.At = time.Now().UnixMilli()
		var err error
		if record.Value, err = control.Record(r); err != nil {
			t.Fatal(err)
		}
	}
	streamtest.Produce(t, k, record)
}

// What is on the topic already is held back too, over a restart, and comes back as soon as it may: from the lane, or from
// the retry topics, where an app's deliveries make room for others'.
func TestControlReachesTheLog(t *testing.T) {
	t.Parallel()
	const n = 300
	for _, name := range []control.Name{control.Lane(fcm, bulk), control.App("shop"), control.Destination(fcm, "shop", "w")} {
		t.Run(string(name), func(t *testing.T) {
			t.Parallel()
			k := streamtest.Kafka(t)
			campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
			restrain(t, k, name, &pb.Restraint{Paused: true})
			p := &fakeProvider{platform: fcm, ceiling: 50, answer: func(context.Context, *Request) (*wire.Result, error) { return status(200) }}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- NewPlatform(k, p, schemas.Classes).Run(ctx) }()
			var records []*kgo.Record
			for i := range n {
				records = append(records, onTopic(sendBulk, delivery("spring", fmt.Sprint("d", i), "w")))
			}
			streamtest.Produce(t, k, records...)
			if name != control.Lane(fcm, bulk) {
				deferred(t, k, n)
			}
			stop()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			streamtest.Run(t, NewPlatform(k, p, schemas.Classes).Run)
			// The other lane is at work, and this one holds what it has.
			urgent := delivery("spring", "urgent", "x")
			urgent.Class = pb.Class_CLASS_URGENT
			if name != control.App("shop") {
				streamtest.Produce(t, k, onTopic(schemas.TopicSend(fcm, pb.Class_CLASS_URGENT), urgent))
				outcomes(t, k, 1+map[bool]int{true: n}[name != control.Lane(fcm, bulk)])
			}
			for _, r := range p.requests() {
				if r.Delivery.Device != "urgent" {
					t.Fatal("a request was made for what is paused")
				}
			}
			restrain(t, k, name, nil)
			accepted := map[string]bool{}
			streamtest.Read(t, k, func(r *kgo.Record) bool {
				for _, res := range batchOf(t, r.Value).Results {
					if res.Outcome == pb.Outcome_OUTCOME_ACCEPTED && string(res.Delivery) != string(urgent.Id) {
						accepted[string(res.Delivery)] = true
						if res.Attempt != 1 {
							t.Errorf("attempt %d: waiting counts none", res.Attempt)
						}
					}
				}
				return len(accepted) < n
			}, results)
		})
	}
}

// A campaign of 100 that lies behind one of 10,000 on the same partitions is through before a quarter of that is, in the
// same app and in another.
func TestSmallCampaignsAreThroughLongBeforeALargeOne(t *testing.T) {
	const large, small = 10_000, 100
	k := streamtest.Kafka(t)
	campaign(t, k, "large", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	campaign(t, k, "small", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	other := &pb.Campaign{App: "news", Id: "small", State: pb.CampaignState_CAMPAIGN_STATE_RUNNING, Message: &pb.Message{Content: &pb.Content{Title: "x"}}}
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("news", "small"), Value: encode(other)})
	var records []*kgo.Record
	for i := range large {
		records = append(records, onTopic(sendBulk, delivery("large", fmt.Sprint("d", i), "w")))
	}
	for i := range small {
		records = append(records, onTopic(sendBulk, delivery("small", fmt.Sprint("d", i), "w")))
		d := delivery("small", fmt.Sprint("d", i), "w")
		id := schemas.DeliveryID("news", d.Run, d.Device, 0)
		d.App, d.Id = "news", id[:]
		records = append(records, onTopic(sendBulk, d))
	}
	streamtest.Produce(t, k, records...)
	p := &fakeProvider{ceiling: 16, answer: func(context.Context, *Request) (*wire.Result, error) {
		time.Sleep(2 * time.Millisecond) // an answer's way: so that the window is full before it is done
		return status(200)
	}}
	lane(t, k, p)
	outcomes(t, k, large+2*small)
	last := map[string]int{}
	before := 0
	for _, r := range p.requests() {
		if r.Delivery.Run == "large" {
			before++
			continue
		}
		last[r.Delivery.App] = before
	}
	for _, app := range []string{"shop", "news"} {
		if last[app] > large/4 {
			t.Errorf("the small campaign of %s ended when %d of %d of the large one were out", app, last[app], large)
		}
	}
}
