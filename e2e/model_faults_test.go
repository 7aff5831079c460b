package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// trouble is one thing that is wrong from one moment to another, since a play's start.
type trouble struct {
	name string
	// role is the process that it starts and stops, if it does.
	role     string
	from, to time.Duration
	begin    func(*model)
	end      func(*model)
	// lasts says that what it hits is not all sent afterwards: it was told to end, or for how long to wait.
	lasts bool
	// hits says whether it is of a delivery's own: its target, its destination, its lane, its part of Kafka.
	hits func(*asked) bool
}

func everything(*asked) bool { return true }

func onPlatform(p pb.Platform) func(*asked) bool {
	return func(a *asked) bool { return a.at.platform() == p }
}

// troubled draws what is wrong in a play, all of it over by latest.
func troubled(r *rand.Rand, devices map[place][]simulator.Device, latest time.Duration) (all []*trouble) {
	kinds := []func(*rand.Rand, map[place][]simulator.Device, int) *trouble{
		sickService, sickService, sickApp, sickDevices, sickDevices, refusedTopic, refusedCommit, restarted, killed, kafkaAway, statusGone,
		operatorPause, withoutCredential,
	}
	for n := range 1 + r.IntN(4) {
		t := kinds[r.IntN(len(kinds))](r, devices, n)
		if t.role != "" && slices.ContainsFunc(all, func(o *trouble) bool { return o.role == t.role }) {
			continue // one process cannot be stopped twice
		}
		t.from = warmUp + time.Duration(r.Int64N(int64(latest-warmUp-2*time.Second)))
		t.to = t.from + time.Second + time.Duration(r.Int64N(int64(latest-t.from-time.Second)))
		all = append(all, t)
	}
	return all
}

// failing is one of the ways in which a service fails, each time or now and then.
func failing(r *rand.Rand) simulator.Fault {
	all := []simulator.Fault{
		{Kind: simulator.Status, Status: 503},
		{Kind: simulator.Status, Status: 500},
		{Kind: simulator.Status, Status: 429},
		{Kind: simulator.Status, Status: 429, RetryAfter: 3600},
		{Kind: simulator.Stall},
		{Kind: simulator.Latency, Delay: simulator.Duration(3 * time.Second)},
		{Kind: simulator.Reset},
	}
	f := all[r.IntN(len(all))]
	if r.IntN(3) == 0 {
		f.Rate = []float64{0.2, 0.5, 0.9}[r.IntN(3)]
	}
	f.AfterAccepting = f.Kind == simulator.Reset && r.IntN(2) == 0
	return f
}

func fault(name string, n int, f simulator.Fault, hits func(*asked) bool) *trouble {
	key := fmt.Sprint(name, n)
	return &trouble{
		name: fmt.Sprintf("%s: %s %d (rate %v, retry after %d) of %s %s, %d targets", name, f.Kind, f.Status, f.Rate, f.RetryAfter, f.App, f.Origin, len(f.Targets)),
		begin: func(m *model) {
			if err := m.providers.SetFault(key, f); err != nil {
				m.t.Errorf("%s: %v", name, err)
			}
		},
		end:   func(m *model) { m.providers.ClearFault(key) },
		lasts: f.Kind == simulator.Mismatch || f.Status == 429, // which says for how long, and FCM's wants a minute
		hits:  hits,
	}
}

func sickService(r *rand.Rand, _ map[place][]simulator.Device, n int) *trouble {
	svc := modelServices[r.IntN(len(modelServices))]
	f := failing(r)
	f.Origin = svc.String()
	return fault("service", n, f, func(a *asked) bool { return a.at.service == svc })
}

func sickApp(r *rand.Rand, _ map[place][]simulator.Device, n int) *trouble {
	at := place{modelApps[r.IntN(len(modelApps))], modelServices[r.IntN(len(modelServices))]}
	f := simulator.Fault{Kind: simulator.Credentials, Origin: at.service.String(), App: at.app}
	if r.IntN(2) == 0 {
		f = failing(r)
		f.Origin, f.App = at.service.String(), at.app
	}
	return fault("app", n, f, func(a *asked) bool { return a.at == at })
}

// sickDevices are some of a place's, from one to all but one.
func sickDevices(r *rand.Rand, devices map[place][]simulator.Device, n int) *trouble {
	at := place{modelApps[r.IntN(len(modelApps))], modelServices[r.IntN(len(modelServices))]}
	of := devices[at]
	f, sick := failing(r), map[string]bool{}
	if r.IntN(3) == 0 {
		f = simulator.Fault{Kind: simulator.Mismatch}
	}
	f.App = at.app
	for _, i := range r.Perm(len(of))[:1+r.IntN(len(of)-1)] {
		f.Targets = append(f.Targets, of[i].ID)
		sick[of[i].ID] = true
	}
	return fault("devices", n, f, func(a *asked) bool { return a.at == at && sick[a.device] })
}

// refusedTopic is a topic that takes no records.
func refusedTopic(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	p := schemas.Platforms[r.IntN(len(schemas.Platforms))]
	topics := []string{
		schemas.TopicResults(p), schemas.TopicSend(p, pb.Class_CLASS_BULK), schemas.TopicRetry(p, pb.Class_CLASS_BULK, schemas.Tiers[0]), schemas.TopicChunks(p),
	}
	topic := "belfry." + topics[r.IntN(len(topics))]
	codes := []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicas, kerr.MessageTooLarge, kerr.PolicyViolation}
	code := codes[r.IntN(len(codes))]
	hits := onPlatform(p)
	if topic == "belfry."+schemas.TopicChunks(p) {
		hits = func(a *asked) bool { return a.class == pb.Class_CLASS_BULK } // one launcher writes all platforms' chunks together
	}
	return &trouble{
		name:  fmt.Sprintf("topic %s: %s", topic, code.Message),
		begin: func(m *model) { m.refused.set(topic, code) },
		end:   func(m *model) { m.refused.set(topic, nil) },
		hits:  hits,
	}
}

// refusedCommit is a role whose offsets Kafka does not take.
func refusedCommit(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	p := schemas.Platforms[r.IntN(len(schemas.Platforms))]
	groups := []string{schemas.LaneRole(p, pb.Class_CLASS_BULK), schemas.LaneRole(p, pb.Class_CLASS_URGENT), "fanout.expander." + schemas.PlatformName(p)}
	group := "belfry." + groups[r.IntN(len(groups))]
	codes := []*kerr.Error{kerr.GroupAuthorizationFailed, kerr.UnknownServerError, kerr.CoordinatorLoadInProgress}
	code := codes[r.IntN(len(codes))]
	return &trouble{
		name:  fmt.Sprintf("commits of %s: %s", group, code.Message),
		begin: func(m *model) { m.refused.set(group, code) },
		end:   func(m *model) { m.refused.set(group, nil) },
		hits:  onPlatform(p),
	}
}

// anyRole draws a role, and says whom its absence hits.
func anyRole(r *rand.Rand) (string, func(*asked) bool) {
	switch n := r.IntN(5); n {
	case 3:
		return "fanout", func(a *asked) bool { return a.class == pb.Class_CLASS_BULK }
	case 4:
		return "ledger", func(*asked) bool { return false }
	default:
		return "senders." + schemas.PlatformName(schemas.Platforms[n]), onPlatform(schemas.Platforms[n])
	}
}

func restarted(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	name, hits := anyRole(r)
	return &trouble{
		name: "stop of " + name, role: name,
		begin: func(m *model) { m.halt(m.roles[name]) },
		end:   func(m *model) { m.start(m.roles[name]) },
		hits:  hits,
	}
}

func killed(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	name, hits := anyRole(r)
	var before <-chan error
	return &trouble{
		name: "kill of " + name, role: name,
		begin: func(m *model) { before = m.kill(m.roles[name]) },
		end: func(m *model) {
			m.start(m.roles[name])
			m.dying = append(m.dying, before)
		},
		hits: hits,
	}
}

func kafkaAway(*rand.Rand, map[place][]simulator.Device, int) *trouble {
	return &trouble{
		name:  "Kafka away",
		begin: func(m *model) { m.cut(true) },
		end:   func(m *model) { m.cut(false) },
		hits:  everything,
	}
}

// statusGone is the topic of what lanes say of themselves, deleted and made again.
func statusGone(*rand.Rand, map[place][]simulator.Device, int) *trouble {
	return &trouble{
		name: "no topic lanes",
		begin: func(m *model) {
			_, err := kadm.NewClient(m.client).DeleteTopic(context.Background(), m.kafka.Topic(schemas.TopicLanes))
			if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) { // another such trouble may last
				m.t.Error(err)
			}
		},
		end: func(m *model) {
			if _, err := stream.ApplyTopics(context.Background(), m.kafka); err != nil {
				m.t.Error(err)
			}
		},
		hits: func(*asked) bool { return false },
	}
}

// operatorPause is an app, a lane or a destination that somebody holds back.
func operatorPause(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	app, p := modelApps[r.IntN(len(modelApps))], schemas.Platforms[r.IntN(len(schemas.Platforms))]
	key, hits := control.App(app), func(a *asked) bool { return a.at.app == app }
	if r.IntN(2) == 0 {
		key, hits = control.Lane(p, pb.Class_CLASS_BULK), func(a *asked) bool { return a.at.platform() == p && a.class == pb.Class_CLASS_BULK }
	}
	set := func(m *model, paused bool) {
		m.produce(schemas.TopicControl, []byte(key), &pb.Control{Kind: &pb.Control_Restraint{Restraint: &pb.Restraint{Paused: paused, At: time.Now().UnixMilli()}}})
	}
	return &trouble{
		name:  "pause of " + string(key),
		begin: func(m *model) { set(m, true) },
		end:   func(m *model) { set(m, false) },
		hits:  hits,
	}
}

// withoutCredential is a senders process with a file that lacks an app.
func withoutCredential(r *rand.Rand, _ map[place][]simulator.Device, _ int) *trouble {
	p := schemas.Platforms[r.IntN(len(schemas.Platforms))]
	name := "senders." + schemas.PlatformName(p)
	swap := func(m *model, apps ...string) {
		m.halt(m.roles[name])
		m.roles[name].make = m.senders(p, apps...)
		m.start(m.roles[name])
	}
	return &trouble{
		name: name + " with a file without an app", role: name,
		begin: func(m *model) { swap(m, modelApps[0]) },
		end:   func(m *model) { swap(m, modelApps...) },
		hits:  onPlatform(p),
	}
}

// refusals are what a broker refuses just now: records of a topic, or offsets of a group.
type refusals struct {
	cluster *kfake.Cluster
	mu      sync.Mutex
	with    map[string]*kerr.Error
}

func newRefusals(c *kfake.Cluster) *refusals {
	r := &refusals{cluster: c, with: map[string]*kerr.Error{}}
	c.ControlKey(kmsg.Produce.Int16(), r.produce)
	c.ControlKey(kmsg.TxnOffsetCommit.Int16(), r.commit)
	return r
}

// set has what a topic or group is asked for be refused, or with nil be taken again.
func (r *refusals) set(name string, with *kerr.Error) {
	info := r.cluster.TopicInfo(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.with[name] = with
	if info != nil {
		r.with[string(info.TopicID[:])] = with // as requests name it
	}
}

func (r *refusals) refuse(req kmsg.Request, names ...string) (kmsg.Response, error, bool) {
	r.cluster.KeepControl()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		if with := r.with[name]; with != nil {
			return stream.Refuse(req, with), nil, true
		}
	}
	return nil, nil, false
}

func (r *refusals) produce(req kmsg.Request) (kmsg.Response, error, bool) {
	var names []string
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		names = append(names, t.Topic, string(t.TopicID[:]))
	}
	return r.refuse(req, names...)
}

func (r *refusals) commit(req kmsg.Request) (kmsg.Response, error, bool) {
	return r.refuse(req, req.(*kmsg.TxnOffsetCommitRequest).Group)
}
