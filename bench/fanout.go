package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Fanout measures the fan-out in a process of its own, from the registry to deliveries that are committed, against a bare
// franz-go producer of the same records, in transactions of the same length.
type Fanout struct {
	Devices, Rounds int
}

// keep is how many of the engine's records the baseline writes in turns.
const keep = 100_000

// Run implements Bench.
func (b Fanout) Run(ctx context.Context, e *Env) (_ Report, err error) {
	d, err := e.peopled(ctx, b.Devices)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, d.close) }()
	if _, err := d.serve(ctx, "fanout", "fanout"); err != nil {
		return nil, err
	}
	stop := d.pretend(ctx)
	defer func() { err = joined(err, stop) }()
	campaign := 0
	engine := func(ctx context.Context) (sample, error) {
		campaign++
		return d.expand(ctx, fmt.Sprintf("fanout-%d", campaign), b.Devices)
	}
	warm, err := engine(ctx)
	if err != nil {
		return nil, err
	}
	e.Say("warm: %s deliveries/s", figure(warm.value))
	records, err := d.deliveries(ctx)
	if err != nil {
		return nil, err
	}
	c := &contest{unit: "deliveries/s", rounds: b.Rounds, env: e, sides: []side{
		{"fanout", engine},
		{"bare producer", func(ctx context.Context) (sample, error) { return d.transact(ctx, records, b.Devices) }},
	}}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	r := c.result("fanout", goal{of: byValue, against: "bare producer", least: 0.6})
	r.Note = e.kind()
	return r, nil
}

// pretend says for every bulk lane that it drains fast, until it is stopped: without a lane's word an expander goes no
// further than what it takes to wake one.
func (d *deployment) pretend(ctx context.Context) (stop func() error) {
	life, cancel := context.WithCancel(ctx)
	over := make(chan error, 1)
	say := func(ctx context.Context, alive bool) error {
		var all []*kgo.Record
		for _, p := range schemas.Platforms {
			r := &kgo.Record{
				Topic: d.Topic(schemas.TopicLanes),
				Key:   schemas.Key(schemas.PlatformName(p), schemas.ClassName(pb.Class_CLASS_BULK), "bench"),
			}
			if alive {
				r.Value, _ = proto.Marshal(&pb.LaneStatus{ // has no string that is not valid
					Platform: p, Class: pb.Class_CLASS_BULK, Instance: "bench", At: time.Now().UnixMilli(), DrainRate: 1e9,
				})
			}
			all = append(all, r)
		}
		return d.client.ProduceSync(ctx, all...).FirstErr()
	}
	go func() {
		var err error
		for err == nil {
			if err = say(life, true); err == nil && !pause(life, time.Second) {
				break
			}
		}
		if life.Err() != nil {
			err = nil
		}
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		over <- errors.Join(err, say(last, false))
	}()
	return func() error {
		cancel()
		return <-over
	}
}

// sends are the topics of all bulk lanes.
func sends() (topics []string) {
	for _, p := range schemas.Platforms {
		topics = append(topics, schemas.TopicSend(p, pb.Class_CLASS_BULK))
	}
	return topics
}

// chunks are the topics that a launch writes to.
func chunks() (topics []string) {
	for _, p := range schemas.Platforms {
		topics = append(topics, schemas.TopicChunks(p))
	}
	return topics
}

// expand launches a campaign to all devices, and measures the fan-out from the moment at which its chunks are there to its
// last commit.
func (d *deployment) expand(ctx context.Context, id string, devices int) (sample, error) {
	_, before, err := d.ends(ctx, sends()...)
	if err != nil {
		return sample{}, err
	}
	_, earlier, err := d.ends(ctx, chunks()...)
	if err != nil {
		return sample{}, err
	}
	launched := make(chan error, 1)
	var written int
	s, err := course{
		what: "deliveries on the send topics",
		begin: func(ctx context.Context) error {
			go func() { launched <- d.launch(ctx, benchApp, id, producer.Audience{Everyone: true}) }()
			for now := earlier; now == earlier; {
				var err error
				if _, now, err = d.ends(ctx, chunks()...); err != nil {
					return err
				}
				if !pause(ctx, lookEvery) {
					return ctx.Err()
				}
			}
			return nil
		},
		read: func(ctx context.Context) (int, error) {
			_, sum, err := d.ends(ctx, sends()...)
			written = int(sum - before)
			return int(sum), err
		},
		// Each commit adds a marker to each partition that it wrote to.
		enough:   func(now int) bool { return now-int(before) >= devices },
		measured: []*process{d.running["fanout"]},
	}.run(ctx)
	if err != nil {
		return s, err
	}
	if err := <-launched; err != nil {
		return s, err
	}
	share := float64(devices) / float64(written) // the rest are markers
	s.ops, s.value = s.ops*share, s.value*share
	return s, nil
}

// deliveries are some of those that the fan-out has written, without what the client would add.
func (d *deployment) deliveries(ctx context.Context) (records []*kgo.Record, err error) {
	err = d.read(ctx, func(r *kgo.Record) {
		if len(records) < keep {
			records = append(records, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value})
		}
	}, sends()...)
	return records, err
}

// commitEvery is how often Belfry commits.
const commitEvery = 250 * time.Millisecond

// transact writes n records in transactions, with nothing else to do.
func (d *deployment) transact(ctx context.Context, records []*kgo.Record, n int) (s sample, err error) {
	client, err := d.Client(kgo.TransactionalID(d.Prefix+"bare"), kgo.MaxBufferedRecords(1<<20))
	if err != nil {
		return s, err
	}
	defer client.Close()
	var failed error
	keepFirst := func(_ *kgo.Record, err error) { // called by one goroutine, and read after Flush
		if failed == nil {
			failed = err
		}
	}
	m, err := newMeter()
	if err != nil {
		return s, err
	}
	for done := 0; done < n; {
		if err := client.BeginTransaction(); err != nil {
			return s, err
		}
		for began := time.Now(); done < n; done++ {
			if done%1000 == 0 && time.Since(began) > commitEvery {
				break
			}
			r := *records[done%len(records)]
			client.Produce(ctx, &r, keepFirst)
		}
		if err := errors.Join(client.Flush(ctx), failed); err != nil {
			return s, err
		}
		if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return s, err
		}
	}
	return m.end(n)
}
