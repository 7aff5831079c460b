package bench

import (
	"bytes"
	"context"
	"crypto/ecdh"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
)

// Intake measures the API's bulk stream of devices, with its client in this process too, against a franz-go producer that
// writes the same records.
type Intake struct {
	Rounds int
	// Devices are how many lines each round has.
	Devices int
}

const intakeKey = "the-key-of-bench-intake"

// Run implements Bench.
func (b Intake) Run(ctx context.Context, e *Env) (_ Report, err error) {
	c, err := e.cluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, c.close) }()
	body, err := b.lines()
	if err != nil {
		return nil, err
	}
	api, err := c.startAPI(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, api.stop) }()
	// The first stream warms up, and its records are what the other side writes.
	e.Say("registering %s devices, %s bytes a line", thousands(int64(b.Devices)), thousands(int64(len(body)/b.Devices)))
	if _, err := api.send(ctx, body, b.Devices); err != nil {
		return nil, err
	}
	records, err := c.written(ctx, schemas.TopicDevices)
	if err != nil {
		return nil, err
	}
	if len(records) != b.Devices {
		return nil, fmt.Errorf("%d lines were acknowledged, and Kafka has %d records", b.Devices, len(records))
	}
	t := &contest{unit: "devices/s", rounds: b.Rounds, env: e, sides: []side{
		{"belfry, bulk API", func(ctx context.Context) (sample, error) { return api.send(ctx, body, b.Devices) }},
		{"franz-go", func(ctx context.Context) (sample, error) { return c.produce(ctx, records) }},
	}}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	r := t.result("intake", goal{of: byValue, against: "franz-go", least: 0.5}, goal{of: perCPU, against: "franz-go"})
	r.Note = e.kind() + "; the API's CPU and allocations are with its client's"
	return r, nil
}

// lines are the devices as a backend would send them: five in ten of APNs, three of FCM, two of web push.
func (b Intake) lines() ([]byte, error) {
	keys := make([]string, 64) // making one takes longer than all else; the API looks at each anew
	for i := range keys {
		key, err := ecdh.P256().GenerateKey(crand.Reader)
		if err != nil {
			return nil, err
		}
		keys[i] = base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes())
	}
	random := rand.New(rand.NewPCG(1, 2))
	var body bytes.Buffer
	body.Grow(400 * b.Devices)
	for i := range b.Devices {
		fmt.Fprintf(&body, `{"id":"d-%07d","user":"u-%07d","locale":"en-GB","app_version":"3.2.1","time_zone":"Europe/Paris","tags":["beta","news"],`+
			`"attributes":{"first_name":"Ada","level":%d,"paying":true},`, i, i/2, i%100)
		switch token := random.Uint64(); {
		case i%10 < 5:
			fmt.Fprintf(&body, `"apns":{"token":"%064x","environment":"production"}}`+"\n", token)
		case i%10 < 8:
			fmt.Fprintf(&body, `"fcm":{"token":"dGhlIHRva2VuIG9mIGE:APA91b%0134x"}}`+"\n", token)
		default:
			fmt.Fprintf(&body, `"webpush":{"endpoint":"https://updates.push.services.mozilla.com/wpush/v2/%0128x","p256dh":"%s","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}`+"\n",
				token, keys[i%len(keys)])
		}
	}
	return body.Bytes(), nil
}

// api is the role producer, in this process.
type api struct {
	cluster *cluster
	url     string
	stop    func() error
}

func (c *cluster) startAPI(ctx context.Context) (*api, error) {
	redis, err := c.registry()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, redis.Close())
	}
	server, err := producer.New(producer.Options{
		Listener: listener, Kafka: c.Kafka, Redis: redis, Version: "bench", Log: slog.New(slog.DiscardHandler),
		Keys: map[string][]producer.Key{benchApp: {{Name: "bench", Hash: sha256.Sum256([]byte(intakeKey)), Scopes: []string{producer.ScopeManage}}}},
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close(), redis.Close())
	}
	life, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- server.Run(life) }()
	return &api{
		cluster: c, url: "http://" + listener.Addr().String() + "/v1/devices/bulk",
		stop: func() error {
			stop()
			return errors.Join(<-ended, redis.Close())
		},
	}, nil
}

// send sends lines on one stream, and hears that each is accepted.
func (a *api) send(ctx context.Context, lines []byte, n int) (sample, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(lines))
	if err != nil {
		return sample{}, err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + intakeKey}, "Content-Type": {"application/x-ndjson"}}
	m, err := newMeter(a.cluster.processes()...)
	if err != nil {
		return sample{}, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return sample{}, err
	}
	defer resp.Body.Close()
	answers, err := io.ReadAll(resp.Body)
	if err != nil {
		return sample{}, err
	}
	s, err := m.end(n)
	if got := bytes.Count(answers, []byte(`"accepted"`)); err == nil && got != n {
		err = fmt.Errorf("%s: %d of %d lines were accepted", resp.Status, got, n)
	}
	return s, err
}

// processes are those of the cluster that can be measured: an embedded one.
func (c *cluster) processes() []*process {
	if c.embedded == nil {
		return nil
	}
	return []*process{c.embedded}
}

// written are all records of a topic.
func (c *cluster) written(ctx context.Context, topic string) (all []*kgo.Record, err error) {
	err = c.read(ctx, func(r *kgo.Record) { all = append(all, r) }, topic)
	return all, err
}

// produce writes records as an own program would, with franz-go's defaults, and waits until Kafka has them all.
func (c *cluster) produce(ctx context.Context, records []*kgo.Record) (sample, error) {
	client, err := c.Client()
	if err != nil {
		return sample{}, err
	}
	defer client.Close()
	// The first record learns where the topic's partitions are: the API's client knows.
	first := &kgo.Record{Topic: records[0].Topic, Key: records[0].Key, Value: records[0].Value}
	if err := client.ProduceSync(ctx, first).FirstErr(); err != nil {
		return sample{}, err
	}
	m, err := newMeter(c.processes()...)
	if err != nil {
		return sample{}, err
	}
	var failed error // set by one goroutine, before Flush returns
	for _, r := range records {
		client.Produce(ctx, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return sample{}, err
	}
	s, err := m.end(len(records))
	return s, errors.Join(err, failed)
}
