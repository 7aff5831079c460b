package bench

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/fcm"
	"github.com/belfry/belfry/senders/webpush"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/simulator"
)

// Lane measures one platform's bulk lane in this process, from a delivery's record in Kafka to its committed outcome, with
// nghttpd as the provider.
type Lane struct {
	Platform pb.Platform
	Rounds   int
	// For is how long each side works in a round, at least.
	For time.Duration
	// Warm is how long a lane works before it is measured: it begins with few requests in flight and one connection.
	Warm time.Duration
}

const (
	laneRun = "lane"
	// lanePeople are the devices that deliveries go to in turns.
	lanePeople = 10_000
)

// Run implements Bench.
func (b Lane) Run(ctx context.Context, e *Env) (_ Report, err error) {
	d, err := e.deploy(ctx, b.population(), startNghttpd)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	l, err := b.side(ctx, d)
	if err != nil {
		return nil, err
	}
	name := "lane-" + schemas.PlatformName(b.Platform)
	c := &contest{unit: "pushes/s", rounds: b.Rounds, env: e, sides: []side{{name, func(ctx context.Context) (sample, error) { return l.run(ctx, l.inProcess) }}}}
	goals, err := l.rivals(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	if err := l.verify(ctx); err != nil {
		return nil, err
	}
	r := c.result(name, goals...)
	r.Note = e.kind()
	return r, nil
}

// population is whom deliveries go to.
func (b Lane) population() simulator.Population {
	who := simulator.Population{Seed: 1, Apps: []string{benchApp}, Devices: lanePeople}
	switch b.Platform {
	case pb.Platform_PLATFORM_APNS:
		who.Mix.APNs = 1
	case pb.Platform_PLATFORM_FCM:
		who.Mix.FCM = 1
	default:
		who.Mix.WebPush = 1
	}
	return who
}

// side makes the lane's side on a deployment, with the campaign that all deliveries are of.
func (b Lane) side(ctx context.Context, d *deployment) (*laneSide, error) {
	l := &laneSide{Lane: b, deployment: d, need: 50_000}
	var err error
	if l.people, err = d.devices(benchApp); err != nil {
		return nil, err
	}
	for _, k := range l.people {
		if t := k.target.GetApns(); t != nil {
			t.Token, _ = hex.DecodeString(nghttpdToken)
		}
		if t := k.target.GetWebpush(); t != nil {
			t.Endpoint = d.url() + pushPath
		}
	}
	m, err := text.Proto()
	if err != nil {
		return nil, err
	}
	if l.message, err = message.Compile(m, message.Campaign); err != nil {
		return nil, err
	}
	c, err := proto.Marshal(&pb.Campaign{App: benchApp, Id: laneRun, Message: m, State: pb.CampaignState_CAMPAIGN_STATE_RUNNING})
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{Topic: d.Topic(schemas.TopicCampaigns), Key: schemas.Key(benchApp, laneRun), Value: c}
	return l, d.client.ProduceSync(ctx, r).FirstErr()
}

// rivals adds the sides that the lane is compared with.
func (l *laneSide) rivals(ctx context.Context, c *contest) ([]goal, error) {
	rival := func(name string, make func() (func(context.Context) (sample, error), error)) error {
		run, err := make()
		c.sides = append(c.sides, side{name, run})
		return err
	}
	wires := func() (func(context.Context) (sample, error), error) {
		requests, err := l.requests()
		return wireSide(l.server, requests, l.For), err
	}
	switch l.Platform {
	case pb.Platform_PLATFORM_APNS:
		return []goal{
			{of: perCPU, against: "senders/wire", least: 0.5},
			{of: perCPU, fixed: 200_000, least: 1},
		}, rival("senders/wire", wires)
	case pb.Platform_PLATFORM_FCM:
		err := errors.Join(rival("senders/wire", wires), rival("firebase SendEach", func() (func(context.Context) (sample, error), error) {
			return sendEachSide(ctx, l.server, []byte(fcmBody), l.For)
		}))
		return []goal{
			{of: perCPU, against: "senders/wire", least: 0.4},
			{of: perCPU, against: "firebase SendEach", least: 20},
		}, err
	}
	err := errors.Join(rival("P-256 ECDH", func() (func(context.Context) (sample, error), error) {
		return ecdhSide(l.server, runtime.GOMAXPROCS(0), l.For)
	}), rival("webpush-go", func() (func(context.Context) (sample, error), error) {
		return webpushGoSide(l.server, []byte(webBody), l.For)
	}))
	return []goal{
		{of: perCPU, against: "P-256 ECDH", least: 0.7},
		{of: perCPU, against: "webpush-go", least: 2.5},
	}, err
}

// fcmBody and webBody are what messages are like once they are made.
const (
	fcmBody = `{"message":{"token":"dGhlIHRva2VuIG9mIGE:APA91bdGhpcyBpcyBhIHRva2VuIG9mIGEgZGV2aWNlIHRoYXQgaXMgbm90IHRoZXJl","notification":{"title":"Hello Željko","body":"You are on level 12, and this came to you by fcm"},"android":{"ttl":"3600s","notification":{"tag":"0f1e2d3c-4b5a-8978-8796-a5b4c3d2e1f0"}}}}`
	webBody = `{"id":"0f1e2d3c-4b5a-8978-8796-a5b4c3d2e1f0","tag":"0f1e2d3c-4b5a-8978-8796-a5b4c3d2e1f0","title":"Hello Željko","body":"You are on level 12, and this came to you by webpush"}`
)

// laneSide is the lane, on a topic that is filled before each round.
type laneSide struct {
	Lane
	*deployment
	people  []known
	message *message.Compiled
	// need is how many deliveries a round takes, by the last one.
	need int
	// written are all deliveries so far.
	written int
}

func (l *laneSide) topic() string { return schemas.TopicSend(l.Platform, pb.Class_CLASS_BULK) }

// group is the lane's, as senders names it.
func (l *laneSide) group() string {
	return schemas.LaneRole(l.Platform, pb.Class_CLASS_BULK)
}

// delivery is the next one.
func (l *laneSide) delivery(now time.Time) *pb.Delivery {
	to := &l.people[l.written%len(l.people)]
	id := schemas.DeliveryID(benchApp, laneRun, to.id, uint32(l.written/len(l.people)))
	l.written++
	return &pb.Delivery{
		Id: id[:], App: benchApp, Run: laneRun, Device: to.id, Class: pb.Class_CLASS_BULK, Target: to.target,
		Locale: "en-GB", Variables: to.variables, RegisteredAt: 1,
		CreatedAt: now.UnixMilli(), ExpiresAt: now.Add(time.Hour).UnixMilli(),
	}
}

// fill writes so many more deliveries.
func (l *laneSide) fill(ctx context.Context, n int) error {
	now := time.Now()
	for range n {
		d := l.delivery(now)
		value, err := proto.Marshal(d)
		if err != nil {
			return err
		}
		l.client.Produce(ctx, &kgo.Record{Topic: l.Topic(l.topic()), Key: schemas.Key(benchApp, d.Device), Value: value}, nil)
	}
	return l.client.Flush(ctx)
}

// requests are what the lane makes of its first deliveries, with an authorization as long as its own: the same bytes for
// senders/wire alone. The deliveries come again.
func (l *laneSide) requests() ([]*wire.Request, error) {
	provider, err := l.provider()
	if err != nil {
		return nil, err
	}
	all := make([]*wire.Request, inFlight)
	for i := range all {
		r := &senders.Request{}
		if err := provider.Encode(r, l.delivery(time.Now()), l.message, time.Now()); err != nil {
			return nil, err
		}
		r.Fields = append(r.Fields, pushFields()[0])
		all[i] = &r.Request
	}
	l.written = 0
	return all, nil
}

func (l *laneSide) backlog(ctx context.Context) (int, error) {
	return l.deployment.backlog(ctx, l.group(), l.topic())
}

// lanes is a lane at work, in this process or in others.
type lanes struct {
	stop  func() error
	ended <-chan error
	meter func() (meter, error)
}

// inProcess starts the platform's lanes in this process.
func (l *laneSide) inProcess(ctx context.Context) (*lanes, error) {
	provider, err := l.provider()
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- senders.NewPlatform(l.Kafka, provider, []pb.Class{pb.Class_CLASS_BULK}).Run(life) }()
	return &lanes{
		ended: ended,
		stop: func() error {
			stop()
			return <-ended
		},
		meter: func() (meter, error) { return newMeter(l.process) },
	}, nil
}

// run is one round: the lane starts with enough to do, and is measured once it is warm.
func (l *laneSide) run(ctx context.Context, start func(context.Context) (*lanes, error)) (sample, error) {
	for {
		left, err := l.backlog(ctx)
		if err == nil {
			err = l.fill(ctx, max(0, l.need-left))
		}
		if err != nil {
			return sample{}, err
		}
		runtime.GC()
		at, err := start(ctx)
		if err != nil {
			return sample{}, err
		}
		s, err := l.measure(ctx, at)
		if err != nil {
			return s, err
		}
		if err := at.stop(); err != nil {
			return s, err
		}
		l.need = max(l.need, int(1.2*s.value*(l.For+l.Warm+2*time.Second).Seconds()))
		if s.wall >= l.For*3/4 {
			return s, nil
		}
		l.say("the lane ran dry after %.1f s: once more with %d deliveries", s.wall.Seconds(), l.need)
	}
}

// look is how often the backlog is asked for. A lane commits four times a second, so it goes down in steps, and from one
// step to another is what is measured.
const look = 40 * time.Millisecond

// measure waits for the first commit and for warmth, and then measures from one commit to another.
func (l *laneSide) measure(ctx context.Context, at *lanes) (s sample, err error) {
	first, err := l.backlog(ctx)
	if err != nil {
		return s, err
	}
	var m meter
	var warm time.Time
	begun, last := 0, first
	for {
		select {
		case err := <-at.ended:
			return s, errors.Join(errors.New("the lane has ended"), err)
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(look):
		}
		left, err := l.backlog(ctx)
		if err != nil {
			return s, err
		}
		step := left < last
		last = left
		switch {
		case step && warm.IsZero():
			warm = time.Now().Add(l.Warm)
		case begun == 0 && left == 0 && !warm.IsZero():
			// It was done before it was warm. The next time it has more to do.
			return sample{value: float64(first) / l.Warm.Seconds()}, nil
		case step && begun == 0 && time.Now().After(warm):
			begun = left
			if m, err = at.meter(); err != nil {
				return s, err
			}
		case step && begun > 0 && (left == 0 || time.Since(m.began) >= l.For):
			return m.end(begun - left)
		}
	}
}

// provider is Belfry's own, with the simulator's credentials.
func (l *laneSide) provider() (senders.Provider, error) {
	a, err := l.sim.App(benchApp)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	switch l.Platform {
	case pb.Platform_PLATFORM_APNS:
		return apns.New(map[string]apns.Config{benchApp: {
			Key: []byte(a.APNsKey), KeyID: a.KeyID, TeamID: a.TeamID, Topic: a.Topic, URL: l.url(), CA: l.ca, Wire: true,
		}}, log)
	case pb.Platform_PLATFORM_FCM:
		account, err := l.sim.ServiceAccount(a)
		if err != nil {
			return nil, err
		}
		return fcm.New(map[string]fcm.Config{benchApp: {
			ServiceAccount: account, URL: l.url(), TokenURL: l.url() + "/token", CA: l.ca, PerMinute: 1_000_000_000, Wire: true,
		}}, log)
	}
	return webpush.New(map[string]webpush.Config{benchApp: {
		PublicKey: a.VAPIDPublic, PrivateKey: a.VAPIDPrivate, Subject: a.Subject, AllowHosts: []string{l.addr}, CA: l.ca, Wire: true,
	}}, log)
}

// verify reads the outcomes: every delivery that the lane is done with was accepted, once.
func (l *laneSide) verify(ctx context.Context) error {
	left, err := l.backlog(ctx)
	if err != nil {
		return err
	}
	accepted, others := 0, map[string]int{}
	var broken error
	err = l.read(ctx, func(r *kgo.Record) {
		var batch pb.ResultBatch
		if err := proto.Unmarshal(r.Value, &batch); err != nil {
			broken = err
		}
		for _, one := range batch.Results {
			if one.Outcome == pb.Outcome_OUTCOME_ACCEPTED {
				accepted++
			} else {
				others[one.Outcome.String()+" "+one.Code]++
			}
		}
	}, schemas.TopicResults(l.Platform))
	if err = errors.Join(err, broken); err != nil {
		return err
	}
	if accepted != l.written-left || len(others) > 0 {
		return fmt.Errorf("of %d deliveries %d are not done and %d were accepted; others: %v", l.written, left, accepted, others)
	}
	return nil
}
