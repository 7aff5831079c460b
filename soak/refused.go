package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest/refusal"
)

// refusing is a reason for which a cluster takes no record of one topic, while it is well otherwise.
type refusing struct {
	name string
	code *kerr.Error
	// set and lift make a real cluster give it, where it can by a setting alone.
	set, lift refusal.Change
}

var refusals = []refusing{
	{"not authorized", kerr.TopicAuthorizationFailed, refusal.Deny, refusal.Allow},
	// No setting asks a real cluster for more replicas than there are, so that a broker must be down besides: see e2e.
	{"not enough in-sync replicas", kerr.NotEnoughReplicas, nil, nil},
	// A transaction's marker fits, and no record.
	{"records too large", kerr.MessageTooLarge, refusal.Setting("max.message.bytes", "100"), refusal.Setting("max.message.bytes", "")},
}

// refused has the cluster take no record of one topic for a while. No process may end by it, or need a restart after it.
func (c *chaos) refused(ctx context.Context) {
	p := schemas.Platforms[c.rng.IntN(len(schemas.Platforms))]
	topics := []string{schemas.TopicResults(p), schemas.TopicSend(p, 2), schemas.TopicRetry(p, 2, schemas.Tiers[0])}
	topic := c.w.cluster().Topic(topics[c.rng.IntN(len(topics))])
	r, last := refusals[c.rng.IntN(len(refusals))], c.between(3*time.Second, 15*time.Second)
	if c.w.kafka.broker == nil && r.set == nil {
		r = refusals[0] // not by a choice of its own, so that a seed's order is the same on every cluster
	}
	e := c.begin(event{kind: "topic refused", target: topic, senders: true, note: r.name})
	c.check(c.w.refuse(ctx, topic, &r))
	fired := c.w.comes(topic, true)
	c.pause(ctx, last)
	c.check(c.w.refuse(context.WithoutCancel(ctx), topic, nil))
	if fired && !c.w.comes(topic, false) {
		c.wrong("%s still takes nothing", topic)
	}
	c.end(e, fired)
}

// comes waits until a topic refuses, or takes, records: what is set is in force a moment later.
func (w *world) comes(topic string, refuses bool) bool {
	for range 10 {
		if w.refuses(topic) == refuses {
			return true
		}
		time.Sleep(200 * time.Millisecond)
	}
	return false
}

// refuse begins a topic's refusal, or with nil ends all that it has.
func (w *world) refuse(ctx context.Context, topic string, r *refusing) error {
	if w.kafka.broker != nil {
		return w.kafka.tellRefusal(topic, r)
	}
	client, err := w.cluster().Client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	adm := kadm.NewClient(client)
	if r != nil {
		return r.set(ctx, adm, topic)
	}
	for _, one := range refusals {
		if one.lift != nil {
			err = errors.Join(err, one.lift(ctx, adm, topic))
		}
	}
	return err
}

// refuses tells whether a topic takes no record just now, by a transaction that comes to nothing.
func (w *world) refuses(topic string) bool {
	client, err := w.cluster().Client(kgo.TransactionalID("soak"), kgo.RecordRetries(3))
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if client.BeginTransaction() != nil {
		return false
	}
	err = client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 2048)}).FirstErr()
	_ = client.EndTransaction(ctx, kgo.TryAbort) // a transaction that is left open ends by itself, in a minute
	return err != nil
}

// deleted deletes the topic of what lanes tell of themselves, and makes it again: those that write and read it go on.
func (c *chaos) deleted(ctx context.Context) {
	topic, away := c.w.cluster().Topic(schemas.TopicLanes), c.between(0, 5*time.Second)
	e := c.begin(event{kind: "topic deleted", target: topic, platform: "-"})
	client, err := c.w.cluster().Client()
	if err != nil {
		c.check(err)
		return
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	_, err = adm.DeleteTopic(ctx, topic)
	if ctx.Err() == nil {
		c.check(err)
	}
	c.pause(ctx, away)
	_, again := command(c.w.dir, c.w.env, c.w.belfry(), "topics", "apply")
	c.check(again)
	c.end(e, err == nil)
}

// wrongFile has a process run for a while with a file that lacks what its platform needs.
func (c *chaos) wrongFile(ctx context.Context) {
	var all []*instance
	for _, i := range c.w.of("") {
		if i.platform != "" {
			all = append(all, i)
		}
	}
	i, stays := all[c.rng.IntN(len(all))], c.between(2*time.Second, 8*time.Second)
	file, err := c.w.without(i.platform)
	if err != nil {
		c.check(err)
		return
	}
	e := c.on("wrong file", i, "")
	before := i.logged("no credential for a destination")
	c.check(i.stop())
	c.check(i.start("BELFRY_CONFIG=" + file))
	c.pause(ctx, stays)
	fired := i.logged("no credential for a destination") > before
	c.check(i.stop())
	c.check(i.start())
	c.end(e, fired)
}

// without is a file that lacks the credentials of a platform.
func (w *world) without(platform string) (string, error) {
	b, err := os.ReadFile(filepath.Join(w.dir, "sim", "belfry.yaml"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	drop := false
	for line := range strings.Lines(string(b)) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent <= 4 {
			drop = strings.HasPrefix(line, "    "+platform+":")
		}
		if !drop {
			out.WriteString(line)
		}
	}
	name := filepath.Join(w.dir, "without-"+platform+".yaml")
	return name, os.WriteFile(name, []byte(out.String()), 0o600)
}

// logged counts how often a process has logged something.
func (p *process) logged(what string) int {
	b, err := os.ReadFile(filepath.Join(p.dir, p.name+".log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(b), what)
}

// tellRefusal has the embedded broker refuse a topic's records, or none.
func (k *kafka) tellRefusal(topic string, r *refusing) error {
	order := ""
	if r != nil {
		order = fmt.Sprint(r.code.Code, " ", topic)
	}
	if err := os.WriteFile(k.order(), []byte(order), 0o600); err != nil {
		return err
	}
	k.broker.signal(syscall.SIGUSR2)
	return nil
}

func (k *kafka) order() string { return k.dir + ".refuse" }

// refuser is the embedded broker's part.
type refuser struct {
	cluster *kfake.Cluster
	file    string
	now     atomic.Pointer[order]
}

type order struct {
	code  int16
	topic string
	id    [16]byte
}

func (r *refuser) begin() {
	r.read()
	r.cluster.ControlKey(kmsg.Produce.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		now := r.now.Load()
		if now == nil {
			return nil, nil, false
		}
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			if t.Topic == now.topic || t.TopicID == now.id {
				return stream.Refuse(req, kerr.TypedErrorForCode(now.code)), nil, true // whatever else is in the request too
			}
		}
		return nil, nil, false
	})
}

// read takes the order that the file has now.
func (r *refuser) read() {
	var o order
	b, _ := os.ReadFile(r.file) // none is no order
	if n, _ := fmt.Sscan(string(b), &o.code, &o.topic); n < 2 {
		r.now.Store(nil)
		return
	}
	if info := r.cluster.TopicInfo(o.topic); info != nil {
		o.id = info.TopicID
	}
	r.now.Store(&o)
}
