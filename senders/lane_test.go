package senders

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

const (
	fcm  = pb.Platform_PLATFORM_FCM
	bulk = pb.Class_CLASS_BULK
)

var (
	sendBulk = schemas.TopicSend(fcm, bulk)
	results  = schemas.TopicResults(fcm)
	dead     = schemas.TopicDead(fcm)
)

// campaign writes a campaign's record.
func campaign(t testing.TB, k *stream.Kafka, id string, state pb.CampaignState) {
	t.Helper()
	c := &pb.Campaign{App: "shop", Id: id, State: state, Message: &pb.Message{Content: &pb.Content{Title: "Hello {{ attributes.name }}"}}}
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("shop", id), Value: encode(c)})
}

// delivery is one of a campaign, to a device whose token tells its destination.
func delivery(run, device, token string) *pb.Delivery {
	id := schemas.DeliveryID("shop", run, device, 0)
	return &pb.Delivery{
		Id: id[:], App: "shop", Run: run, Device: device, Class: bulk,
		Target:    &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: token}}},
		Variables: map[string]string{"attributes.name": "Ada"},
		CreatedAt: time.Now().UnixMilli(), ExpiresAt: time.Now().Add(time.Hour).UnixMilli(), RegisteredAt: 5,
	}
}

func onTopic(topic string, d *pb.Delivery) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: schemas.Key(d.App, d.Device), Value: encode(d)}
}

// lane runs one bulk lane of a provider, with its view, until the test ends.
func lane(t *testing.T, k *stream.Kafka, p *fakeProvider) {
	t.Helper()
	p.platform = fcm
	runs := NewRuns(k, fcm)
	streamtest.Run(t, runs.Run)
	streamtest.Run(t, NewLane(Options{Kafka: k, Provider: p, Class: bulk, Runs: runs, Control: watched(t, k), Rates: NewRates()}).Run)
}

// watched is a view of control that runs until the test ends.
func watched(t testing.TB, k *stream.Kafka) *control.View {
	t.Helper()
	v := control.NewView(k)
	streamtest.Run(t, v.Run)
	return v
}

func batchOf(t *testing.T, value []byte) *pb.ResultBatch {
	t.Helper()
	batch := &pb.ResultBatch{}
	if err := proto.Unmarshal(value, batch); err != nil {
		t.Fatal(err)
	}
	return batch
}

// outcomes reads results until there are n.
func outcomes(t *testing.T, k *stream.Kafka, n int) map[string]*pb.Result {
	t.Helper()
	all := map[string]*pb.Result{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		batch := &pb.ResultBatch{}
		if err := proto.Unmarshal(r.Value, batch); err != nil {
			t.Fatal(err)
		}
		for _, res := range batch.Results {
			key := string(res.Delivery) + res.Outcome.String()
			if all[key] != nil {
				t.Errorf("outcome %v twice for one delivery", res.Outcome)
			}
			all[key] = res
		}
		return len(all) < n
	}, results)
	return all
}

// of finds one delivery's outcomes.
func of(all map[string]*pb.Result, d *pb.Delivery) (found []*pb.Result) {
	for _, r := range all {
		if string(r.Delivery) == string(d.Id) {
			found = append(found, r)
		}
	}
	return found
}

func letters(t *testing.T, k *stream.Kafka, n int) map[string]*pb.DeadLetter {
	t.Helper()
	all := map[string]*pb.DeadLetter{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		l := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, l); err != nil {
			t.Fatal(err)
		}
		if all[string(r.Key)] != nil {
			t.Errorf("two dead letters for %s", r.Key)
		}
		all[string(r.Key)] = l
		return len(all) < n
	}, dead)
	return all
}

// deferred reads retry topics until it has n deliveries, by device, with the topic each lay on.
func deferred(t *testing.T, k *stream.Kafka, n int) (map[string]*pb.Delivery, map[string]schemas.Tier) {
	t.Helper()
	var topics []string
	tiers := map[string]schemas.Tier{}
	for _, tier := range schemas.Tiers {
		topic := schemas.TopicRetry(fcm, pb.Class_CLASS_BULK, tier)
		topics = append(topics, topic)
		tiers[k.Topic(topic)] = tier
	}
	all, at := map[string]*pb.Delivery{}, map[string]schemas.Tier{}
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(r.Value, d); err != nil {
			t.Fatal(err)
		}
		all[d.Device], at[d.Device] = d, tiers[r.Topic]
		return len(all) < n
	}, topics...)
	return all, at
}

// byToken answers by the status that a delivery's token ends in: "a-410".
func byToken(_ context.Context, r *Request) (*wire.Result, error) {
	n := 0
	token := r.Delivery.Target.GetFcm().GetToken()
	if _, err := fmt.Sscanf(token[2:], "%d", &n); err != nil {
		return nil, err
	}
	return status(n)
}

func TestEachDeliveryEndsInItsOutcome(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	campaign(t, k, "off", pb.CampaignState_CAMPAIGN_STATE_CANCELLED)
	p := &fakeProvider{answer: byToken, ceiling: 100}

	expiredOne := delivery("spring", "d-exp", "a-200")
	expiredOne.ExpiresAt = time.Now().Add(-time.Second).UnixMilli()
	homeless := delivery("spring", "d-app", "a-200")
	homeless.App = "unknown-app"
	homelessRun := proto.CloneOf(homeless)
	homelessRun.Run, homelessRun.Message = schemas.RunMessages, &pb.Message{Content: &pb.Content{Title: "x"}}
	cases := []struct {
		d    *pb.Delivery
		want *pb.Result
	}{
		{delivery("spring", "d-ok", "a-200"), &pb.Result{Outcome: pb.Outcome_OUTCOME_ACCEPTED, Attempt: 1}},
		{delivery("spring", "d-gone", "a-410"), &pb.Result{
			Outcome: pb.Outcome_OUTCOME_UNREGISTERED, Code: "410", Attempt: 1,
			Invalid: &pb.Invalid{Device: "d-gone", At: 77, RegisteredAt: 5},
		}},
		{delivery("spring", "d-bad", "a-400"), &pb.Result{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "400", Attempt: 1, Message: true}},
		{expiredOne, &pb.Result{Outcome: pb.Outcome_OUTCOME_EXPIRED, Code: "expired"}},
		{delivery("off", "d-off", "a-200"), &pb.Result{Outcome: pb.Outcome_OUTCOME_CANCELLED, Code: "cancelled"}},
		{delivery("nowhere", "d-run", "a-200"), &pb.Result{Outcome: pb.Outcome_OUTCOME_DEAD, Code: "unknown-run"}},
		{homelessRun, &pb.Result{Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-target", Planned: true}},
	}
	for _, c := range cases {
		streamtest.Produce(t, k, onTopic(sendBulk, c.d))
	}
	lane(t, k, p)
	all := outcomes(t, k, len(cases))
	for _, c := range cases {
		got := of(all, c.d)
		if len(got) != 1 {
			t.Errorf("%s has %d outcomes", c.d.Device, len(got))
			continue
		}
		got[0].At, got[0].Delivery = 0, nil
		if !proto.Equal(got[0], c.want) {
			t.Errorf("%s: got %v, want %v", c.d.Device, got[0], c.want)
		}
	}
	if n := len(p.requests()); n != 3 {
		t.Errorf("%d requests were made, for the 3 deliveries that may be sent", n)
	}
	if title := string(p.requests()[0].Body); title != "Hello Ada" {
		t.Errorf("rendered as %q", title)
	}
	l := letters(t, k, 1)["shop/d-run"]
	if l.GetReason() != "unknown-run" || l.GetDelivery().GetDevice() != "d-run" || l.GetSource().GetTopic() != sendBulk {
		t.Errorf("dead letter: %v", l)
	}
}

func TestUnreadableRecordsAreDeadOnceAndThePartitionMovesOn(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	wrongPlatform := delivery("spring", "apns", "a-200")
	wrongPlatform.Target = &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: []byte("t")}}}
	noID := delivery("spring", "noid", "a-200")
	noID.Id = nil
	bad := map[string][]byte{
		"garbage": []byte("\xff\xff\xff not protobuf"),
		"empty":   nil,
		"big":     make([]byte, maxDelivery+1),
		"apns":    encode(wrongPlatform),
		"noid":    encode(noID),
	}
	good := delivery("spring", "good", "a-200")
	partition := int32(0)
	client := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(900_000))
	for key, value := range bad {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: k.Topic(sendBulk), Partition: partition, Key: []byte(key), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	last := onTopic(k.Topic(sendBulk), good)
	last.Partition = partition
	if err := client.ProduceSync(t.Context(), last).FirstErr(); err != nil {
		t.Fatal(err)
	}
	lane(t, k, &fakeProvider{answer: byToken, ceiling: 100})
	if got := of(outcomes(t, k, 1), good); len(got) != 1 || got[0].Outcome != pb.Outcome_OUTCOME_ACCEPTED {
		t.Errorf("the delivery behind the unreadable ones: %v", got)
	}
	reasons := map[string]string{}
	for key, l := range letters(t, k, len(bad)) {
		reasons[key] = l.Reason
		if l.Source.GetTopic() != sendBulk || len(l.Raw) > 64<<10 {
			t.Errorf("%s: source %v, %d raw bytes", key, l.Source, len(l.Raw))
		}
	}
	want := map[string]string{"garbage": "undecodable", "empty": "undecodable", "big": "oversize", "apns": "undecodable", "noid": "undecodable"}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestFailuresAreDeferredOrDead(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	campaign(t, k, "held", pb.CampaignState_CAMPAIGN_STATE_PAUSED)
	inline := func(device, token string, unknown pb.OnUnknown) *pb.Delivery {
		d := delivery(schemas.RunMessages, device, token)
		d.Message = &pb.Message{Content: &pb.Content{Title: "code"}, OnUnknown: unknown}
		return d
	}
	fails := delivery("spring", "fails", "a-500")
	tired := delivery("spring", "tired", "b-500")
	tired.Attempt, tired.LastCode, tired.FirstAttemptAt = 7, "500", 4711
	soon := delivery("spring", "soon", "c-500")
	soon.ExpiresAt = time.Now().Add(3 * time.Minute).UnixMilli()
	resend := inline("resend", "d-none", pb.OnUnknown_ON_UNKNOWN_UNSPECIFIED)
	drop := inline("drop", "e-none", pb.OnUnknown_ON_UNKNOWN_DROP)
	held := delivery("held", "held", "f-200")
	all := []*pb.Delivery{fails, tired, soon, resend, drop, held}
	for _, d := range all {
		streamtest.Produce(t, k, onTopic(sendBulk, d))
	}
	start := time.Now()
	lane(t, k, &fakeProvider{ceiling: 100, answer: func(ctx context.Context, r *Request) (*wire.Result, error) {
		if token := r.Delivery.Target.GetFcm().GetToken(); token[2:] == "500" {
			return retryAfter(500, 200)
		}
		return byToken(ctx, r)
	}})

	got := map[string]string{}
	found := outcomes(t, k, len(all))
	for _, d := range all {
		for _, r := range of(found, d) {
			got[d.Device] = fmt.Sprintf("%v %s %d %t", r.Outcome, r.Code, r.Attempt, r.Planned)
		}
	}
	if diff := cmp.Diff(map[string]string{
		"fails":  "OUTCOME_DEFERRED 500 1 false",
		"tired":  "OUTCOME_DEAD 500 8 false",
		"soon":   "OUTCOME_EXPIRED expired 1 false",
		"resend": "OUTCOME_DEFERRED timeout 1 true",
		"drop":   "OUTCOME_DEAD unknown 1 true",
		"held":   "OUTCOME_DEFERRED paused 0 false",
	}, got); diff != "" {
		t.Error(diff)
	}

	again, tiers := deferred(t, k, 3)
	if d := again["fails"]; d.Attempt != 1 || d.LastCode != "500" || d.FirstAttemptAt == 0 ||
		d.DueAt < start.Add(200*time.Second).UnixMilli() || d.DueAt > time.Now().Add(250*time.Second).UnixMilli() || tiers["fails"].Delay < 200*time.Second {
		t.Errorf("deferred with Retry-After of 200 s: %v on tier %s", d, tiers["fails"].Name)
	}
	if d := again["held"]; d.Attempt != 0 || d.LastCode != "paused" || tiers["held"].Delay != 5*time.Second {
		t.Errorf("paused: %v on tier %s", d, tiers["held"].Name)
	}
	if d := again["resend"]; d.Attempt != 1 || d.Message == nil {
		t.Errorf("unanswered: %v", d)
	}
	dead := letters(t, k, 2)
	if l := dead["shop/tired"]; l.Reason != "exhausted" || l.Code != "500" || l.Attempts != 8 || l.FirstAt != 4711 || l.Source.GetTopic() != sendBulk {
		t.Errorf("dead letter: %v", l)
	}
	if l := dead["shop/drop"]; l.Reason != "unknown" || l.Code != "timeout" {
		t.Errorf("dead letter: %v", l)
	}
}

// More deliveries of a stuck destination than a window holds lie before those of a well one, on the same partition.
func TestStuckDestinationDoesNotFillTheWindow(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the destination counts as stuck")
	}
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	client := streamtest.Client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range windowRecords + 1000 {
		client.Produce(t.Context(), onTopic(k.Topic(sendBulk), delivery("spring", fmt.Sprint("s", i), "s")), nil)
	}
	for i := range 200 {
		client.Produce(t.Context(), onTopic(k.Topic(sendBulk), delivery("spring", fmt.Sprint("w", i), "w")), nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	lane(t, k, &fakeProvider{ceiling: 16, answer: func(_ context.Context, r *Request) (*wire.Result, error) {
		if r.Destination.Name == "s" {
			<-over
		}
		return status(200)
	}})
	t.Cleanup(func() { close(over) }) // before the lane's own, so that it has nothing to wait for
	accepted := 0
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		batch := &pb.ResultBatch{}
		if err := proto.Unmarshal(r.Value, batch); err != nil {
			t.Fatal(err)
		}
		for _, res := range batch.Results {
			if res.Outcome == pb.Outcome_OUTCOME_ACCEPTED {
				accepted++
			}
		}
		return accepted < 200
	}, results)
}

func TestStopFinishesWhatIsOutAndRepeatsNothing(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	const n = 400
	var records []*kgo.Record
	for i := range n {
		records = append(records, onTopic(sendBulk, delivery("spring", fmt.Sprint("d", i), "w")))
	}
	streamtest.Produce(t, k, records...)
	begun := make(chan struct{}, n)
	p := &fakeProvider{platform: fcm, ceiling: 8, answer: func(context.Context, *Request) (*wire.Result, error) {
		begun <- struct{}{}
		time.Sleep(20 * time.Millisecond) // long enough that some are out whenever the stop comes
		return status(200)
	}}
	for range 3 {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- NewPlatform(k, p, schemas.Classes).Run(ctx) }()
		for range 50 {
			<-begun
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if len(p.requests()) >= n {
		t.Fatal("all was sent before the last stop: the test proves nothing")
	}
	streamtest.Run(t, NewPlatform(k, p, schemas.Classes).Run)
	outcomes(t, k, n)
	times := map[string]int{}
	for _, r := range p.requests() {
		times[r.Delivery.Device]++
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n == 1 })
	if len(times) > 0 {
		t.Errorf("sent more than once: %v", times)
	}
}

func TestPausedCampaignGoesOnAfterResume(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_PAUSED)
	d := delivery("spring", "d", "w")
	streamtest.Produce(t, k, onTopic(sendBulk, d))
	p := &fakeProvider{platform: fcm, ceiling: 8, answer: func(context.Context, *Request) (*wire.Result, error) { return status(200) }}
	streamtest.Run(t, NewPlatform(k, p, schemas.Classes).Run)
	if again, _ := deferred(t, k, 1); !again["d"].Parked {
		t.Errorf("put off as %v", again["d"])
	}
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	for _, r := range of(outcomes(t, k, 2), d) {
		if r.Outcome == pb.Outcome_OUTCOME_ACCEPTED && r.Attempt != 1 {
			t.Errorf("sent as %v", r)
		}
	}
	if n := len(p.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestWhatWaitsForItsNextAttemptIsTold(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	streamtest.Produce(t, k, onTopic(sendBulk, delivery("spring", "bad", "w-503")), onTopic(sendBulk, delivery("spring", "good", "w-200")))
	p := &fakeProvider{platform: fcm, ceiling: 30, answer: func(_ context.Context, r *Request) (*wire.Result, error) {
		if r.Delivery.Device == "bad" {
			return status(503)
		}
		return status(200)
	}}
	streamtest.Run(t, NewPlatform(k, p, schemas.Classes).Run)
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		s := &pb.LaneStatus{}
		if err := proto.Unmarshal(r.Value, s); err != nil {
			t.Fatal(err)
		}
		return s.Class != bulk || s.Retrying != 1 || s.Backlog != 0
	}, schemas.TopicLanes)
}

func TestStatusIsTold(t *testing.T) {
	k := streamtest.Kafka(t)
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	streamtest.Produce(t, k, onTopic(sendBulk, delivery("spring", "s", "s")), onTopic(sendBulk, delivery("spring", "w", "w-200")))
	p := &fakeProvider{platform: fcm, ceiling: 30, answer: func(ctx context.Context, r *Request) (*wire.Result, error) {
		if r.Destination.Name == "s" {
			return status(403)
		}
		return status(200)
	}}
	runs := NewRuns(k, fcm)
	streamtest.Run(t, runs.Run)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewLane(Options{Kafka: k, Provider: p, Class: bulk, Runs: runs, Control: watched(t, k), Rates: NewRates()}).Run(ctx)
	}()
	stopping := false
	streamtest.Read(t, k, func(r *kgo.Record) bool {
		if string(r.Key) != "fcm/bulk/test" {
			t.Errorf("status under %s", r.Key)
		}
		if stopping {
			return r.Value != nil // the last word is that this instance is gone
		}
		s := &pb.LaneStatus{}
		if err := proto.Unmarshal(r.Value, s); err != nil {
			t.Fatal(err)
		}
		if len(s.Destinations) < 2 || s.Destinations[0].State != stateStopped || s.DrainRate == 0 {
			return true
		}
		if d := s.Destinations[0]; d.Reason != "403" || d.Parked != 1 || s.InWindow != 1 || s.OldestMs == 0 || len(s.Partitions) == 0 {
			t.Errorf("status: %v", s)
		}
		if d := s.Destinations[1]; d.Name != "w" || d.State != stateOpen || d.Limit != 30 {
			t.Errorf("the well destination: %v", d)
		}
		stopping = true
		stop()
		return true
	}, schemas.TopicLanes)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
