package senders

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestRetryBringsBackWhenDueAndNeverBefore(t *testing.T) {
	k := streamtest.Kafka(t)
	five, thirty := schemas.TopicRetry(fcm, bulk, schemas.Tiers[0]), schemas.TopicRetry(fcm, bulk, schemas.Tiers[1])
	due := time.Now().Add(1500 * time.Millisecond)
	soon := delivery("spring", "soon", "w")
	soon.DueAt = due.UnixMilli()
	urgent := delivery("spring", "urgent", "w")
	urgent.Class = pb.Class_CLASS_URGENT
	// What has to wait longer than its topic's delay goes round again, and holds up nothing behind it.
	long := delivery("spring", "long", "w")
	long.DueAt = time.Now().Add(25 * time.Second).UnixMilli()
	longRecord := onTopic(five, long)
	longRecord.Timestamp = time.Now().Add(-5 * time.Second)
	streamtest.Produce(t, k,
		onTopic(five, soon), onTopic(schemas.TopicRetry(fcm, pb.Class_CLASS_URGENT, schemas.Tiers[0]), urgent), longRecord,
		&kgo.Record{Topic: five, Key: []byte("garbage"), Value: []byte("\xff\xff")},
	)
	for _, class := range schemas.Classes {
		l := NewLane(Options{Kafka: k, Provider: &fakeProvider{platform: fcm}, Class: class, Control: control.NewView(k), Rates: NewRates()})
		streamtest.Run(t, newRetry(l).run)
	}

	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if r.Timestamp.Before(due.Truncate(time.Millisecond)) {
			t.Errorf("brought back at %v, due at %v", r.Timestamp, due)
		}
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil || d.Device != "soon" {
			t.Errorf("%v, %v", d, err)
		}
		return false
	}, sendBulk)
	streamtest.Read(t, k, func(r *kgo.Record) bool { return string(r.Key) != "shop/urgent" }, schemas.TopicSend(fcm, pb.Class_CLASS_URGENT))
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil || d.DueAt != long.DueAt {
			t.Errorf("%v, %v", d, err)
		}
		return false
	}, thirty)
	if l := letters(t, k, 1)["garbage"]; l.GetReason() != "undecodable" {
		t.Errorf("dead letter: %v", l)
	}
}
