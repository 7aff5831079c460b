package senders

import (
	"fmt"
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
	five, longer := schemas.TopicRetry(fcm, bulk, schemas.Tiers[0]), schemas.TopicRetry(fcm, bulk, schemas.TierFor(8*time.Minute))
	due := time.Now().Add(1500 * time.Millisecond)
	soon := delivery("spring", "soon", "w")
	soon.DueAt = due.UnixMilli()
	urgent := delivery("spring", "urgent", "w")
	urgent.Class = pb.Class_CLASS_URGENT
	// What has to wait longer than its topic's delay goes round again, and holds up nothing behind it.
	long := delivery("spring", "long", "w")
	long.DueAt = time.Now().Add(8 * time.Minute).UnixMilli()
	longRecord := onTopic(five, long)
	longRecord.Timestamp = time.Now().Add(-5 * time.Second)
	streamtest.Produce(t, k,
		onTopic(five, soon), onTopic(schemas.TopicRetry(fcm, pb.Class_CLASS_URGENT, schemas.Tiers[0]), urgent), longRecord,
		&kgo.Record{Topic: five, Key: []byte("garbage"), Value: []byte("\xff\xff")},
	)
	for _, class := range schemas.Classes {
		l := NewLane(Options{Kafka: k, Provider: &fakeProvider{platform: fcm}, Class: class, Control: control.NewView(k), Rates: NewRates()})
		streamtest.Run(t, l.putOff.run)
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
	}, longer)
	if l := letters(t, k, 1)["garbage"]; l.GetReason() != "undecodable" {
		t.Errorf("dead letter: %v", l)
	}
}

// A delivery that is put off is no younger for it: the lane's oldest is counted from when it was made.
func TestTheOldestIsCountedFromItsBeginning(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	runs := NewRuns(k, fcm)
	streamtest.Run(t, runs.Run)
	l := NewLane(Options{Kafka: k, Provider: &fakeProvider{platform: fcm, ceiling: 1}, Class: bulk, Runs: runs, Control: watched(t, k), Rates: NewRates()})
	report, err := newReporter(l)
	if err != nil {
		t.Fatal(err)
	}
	defer report.close()
	d := delivery("spring", "d1", "a-200")
	d.CreatedAt = time.Now().Add(-30 * time.Minute).UnixMilli()
	d.DueAt = time.Now().Add(time.Hour).UnixMilli()
	streamtest.Produce(t, k, onTopic(schemas.TopicRetry(fcm, bulk, schemas.Tiers[4]), d))
	streamtest.Run(t, l.putOff.run)
	for report.status(time.Now()).OldestMs == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if got := time.Duration(report.status(time.Now()).OldestMs) * time.Millisecond; got < 30*time.Minute || got > 31*time.Minute {
		t.Errorf("the oldest is %v old", got)
	}
}

// What failed long before its time comes back when others like it pass. One that fails again then goes on waiting for its time, and has
// spent no attempt.
func TestWhatFailedComesBackEarlyAndSpendsNothing(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	due := time.Now().Add(30 * time.Minute).UnixMilli()
	longest := schemas.TopicRetry(fcm, bulk, schemas.Tiers[4])
	for n := range 20 {
		d := delivery("spring", fmt.Sprint("d", n), "w-200")
		d.Attempt, d.FirstAttemptAt, d.LastCode, d.DueAt, d.EarlyAt = 6, 1, "503", due, time.Now().UnixMilli()
		if n == 7 {
			d.Target.GetFcm().Token = "w-503"
		}
		streamtest.Produce(t, k, onTopic(longest, d))
	}
	streamtest.Run(t, NewPlatform(k, &fakeProvider{platform: fcm, ceiling: 30, answer: byToken}, schemas.Classes).Run)
	for _, r := range outcomes(t, k, 19) {
		if r.Outcome != pb.Outcome_OUTCOME_ACCEPTED || r.Attempt != 7 {
			t.Errorf("%v", r)
		}
	}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		if d.EarlyAt <= r.Timestamp.UnixMilli() {
			return true // as it lay here before
		}
		if d.Device != "d7" || d.Attempt != 6 || d.DueAt != due || d.FirstAttemptAt != 1 {
			t.Errorf("it went back as %v", d)
		}
		return false
	}, longest)
}

// One that came back early and failed shortly before its time waits for that, not for five seconds more.
func TestWhatIsBackEarlyComesAtItsTimeAtTheLatest(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	for _, left := range []time.Duration{2 * time.Second, 5 * time.Second, time.Minute} {
		d := delivery("spring", "d1", "w")
		d.Attempt, d.DueAt, d.EarlyAt = 3, now.Add(left).UnixMilli(), now.UnixMilli()
		j := &job{delivery: d, early: true}
		v := Verdict{Next: Later, Of: OfService, Code: "503"}
		if !j.tooEarly(v, now) {
			t.Fatal("it is not early")
		}
		_, due := j.until(v, now)
		j.waits(v, due, now)
		if want := min(left, 5*time.Second); d.DueAt != now.Add(left).UnixMilli() || d.EarlyAt != now.Add(want).UnixMilli() || d.Attempt != 3 {
			t.Errorf("%v before its time: %v", left, d)
		}
	}
}

// One that came back early, and fell due before its turn came, is asked soon: it has not failed again.
func TestWhatFellDueBeforeItsTurnWaitsNoBackoff(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	d := delivery("spring", "d1", "w")
	d.Attempt, d.DueAt, d.ExpiresAt = 7, now.UnixMilli()-1, now.Add(24*time.Hour).UnixMilli()
	j := &job{delivery: d, early: true}
	if _, due := j.until(Verdict{Next: Later, Of: OfService, Code: codeSlow}, now); due.Sub(now) != schemas.Tiers[0].Delay {
		t.Errorf("it waits %v more", due.Sub(now))
	}
}
